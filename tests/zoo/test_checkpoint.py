"""Checkpoints of others: their weights are read, and nothing in them is ever run."""

from __future__ import annotations

import builtins
import gzip
import io
import os
import pickle
import re
import warnings
import zipfile
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
import torch

from textseg.errors import ModelError
from textseg.zoo.checkpoint import read_checkpoint

WEIGHTS = {
    "module.stages.0.convs.0.conv.weight": torch.arange(6.0).reshape(3, 2),
    "module.stages.0.convs.0.norm.bias": torch.tensor([1.0, -2.0]),
}


def saved(path: Path, *, legacy: bool = False, **content) -> Path:
    """A file of torch.save; the weights above unless told otherwise."""
    parts = {"step": 7, "model_state_dict": OrderedDict(WEIGHTS), **content}
    present = {name: part for name, part in parts.items() if part is not ...}
    torch.save(present, path, _use_new_zipfile_serialization=not legacy)
    return path


def refusal(path: Path) -> ModelError:
    with pytest.raises(ModelError) as caught:
        read_checkpoint(path)
    assert caught.value.path == path
    assert caught.value.remedy
    return caught.value


@pytest.fixture(name="path")
def _path(tmp_path):
    return tmp_path / "sat.pth"


@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "older"])
def test_the_weights_come_back_without_the_prefix(path, legacy):
    found = read_checkpoint(saved(path, legacy=legacy))
    assert found.step == 7
    assert list(found.state) == ["stages.0.convs.0.conv.weight", "stages.0.convs.0.norm.bias"]
    for name, tensor in WEIGHTS.items():
        assert torch.equal(found.state[name.removeprefix("module.")], tensor)


@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "older"])
def test_the_state_of_the_optimiser_is_left_out(path, legacy):
    weights = [torch.nn.Parameter(tensor.clone()) for tensor in WEIGHTS.values()]
    optimiser = torch.optim.AdamW(weights)
    sum(weight.sum() for weight in weights).backward()
    optimiser.step()
    saved(path, legacy=legacy, optimizer_state_dict=optimiser.state_dict())
    assert set(read_checkpoint(path).state) == {name[7:] for name in WEIGHTS}


NUMBERS = [np.float64(0.25), np.float32(0.25), np.int64(-3), np.uint8(200), np.bool_(True)]


@pytest.mark.parametrize("number", NUMBERS, ids=lambda number: type(number).__name__)
def test_a_number_of_numpy_among_the_optimiser_is_no_obstacle(path, number):
    rates = {"param_groups": [{"lr": number}]}
    assert read_checkpoint(saved(path, optimizer_state_dict=rates)).step == 7


@pytest.mark.parametrize("package", [b"numpy.core", b"numpy._core"], ids=["numpy 1", "numpy 2"])
@pytest.mark.parametrize("step", [np.int64(200_000), np.float64(200_000), torch.tensor(200_000)])
def test_a_step_may_be_written_by_numpy_of_any_version(path, package, step):
    saved(path, step=step, legacy=True)
    content = path.read_bytes()
    for other in (b"numpy._core", b"numpy.core"):
        content = content.replace(other + b".multiarray", package + b".multiarray")
    path.write_bytes(content)
    assert read_checkpoint(path).step == 200_000


def test_a_number_in_the_other_byte_order_is_read_as_such(path):
    content = saved(path, step=np.int32(0x0102), legacy=True).read_bytes()
    little, big = b"X\x01\0\0\0<", b"X\x01\0\0\0>"
    assert content.count(little) == 1
    path.write_bytes(content.replace(little, big))
    assert read_checkpoint(path).step == 0x02010000


def test_a_checkpoint_may_not_say_its_step(path):
    assert read_checkpoint(saved(path, step=...)).step is None


def test_two_names_of_one_tensor_become_one(path):
    conv, norm = WEIGHTS.values()
    aliases = {
        "module.stages.0.convs.0.all_modules.0.weight": conv,
        "module.stages.0.convs.0.all_modules.1.bias": norm.clone(),
    }
    found = read_checkpoint(saved(path, model_state_dict=WEIGHTS | aliases))
    assert set(found.state) == {name[7:] for name in WEIGHTS}


@pytest.mark.parametrize("other", [torch.tensor([1.0, 2.0]), torch.tensor([1.0])])
def test_two_names_that_disagree_are_refused(path, other):
    alias = {"module.stages.0.convs.0.all_modules.1.bias": other}
    error = refusal(saved(path, model_state_dict=WEIGHTS | alias))
    assert error.code == "E412"
    assert "stages.0.convs.0.norm.bias twice" in error.cause


# nothing of this may ever happen


class Asks:
    """Pickles as a call of anything with anything."""

    def __init__(self, function, *arguments) -> None:
        self.call = (function, arguments)

    def __reduce__(self):
        return self.call


@pytest.fixture(name="marker")
def _marker(tmp_path):
    """A file that each of the malicious pickles would create."""
    marker = tmp_path / "marker"
    yield marker
    assert not marker.exists()


def attacks(marker: Path) -> dict[str, tuple[Asks, str]]:
    """Malicious objects, and the name that a refusal gives to what they ask for."""
    code = f"open({str(marker)!r}, 'w').close()"
    nested = pickle.dumps(Asks(os.system, f"touch {marker}"), 2)
    scalar = np.float64(0).__reduce__()[0]
    return {
        "system": (Asks(os.system, f"touch {marker}"), f"{os.name}.system"),
        "exec": (Asks(builtins.exec, code), "exec"),
        "mkdir": (Asks(os.mkdir, str(marker)), f"{os.name}.mkdir"),
        "method": (Asks(Path.mkdir, marker), "getattr"),
        "pickle": (Asks(pickle.loads, nested), "pickle.loads"),
        "torch.load": (Asks(torch.load, io.BytesIO(nested)), "torch.serialization.load"),
        "numpy object": (Asks(scalar, np.dtype("O"), nested), "numpy.dtype('O8')"),
        "numpy function": (Asks(np.fromfile, str(marker)), "numpy.fromfile"),
        "numpy void": (Asks(scalar, np.dtype([("a", "O")]), nested), "numpy.dtype('V8')"),
    }


NAMES = list(attacks(Path("marker")))
PLACES = ["step", "model_state_dict", "optimizer_state_dict", "name", "beside"]


def placed(attack: Asks, place: str) -> dict[str, object]:
    """The attack in a part of a checkpoint that looks sound otherwise."""
    if place == "model_state_dict":
        return {place: WEIGHTS | {"module.extra": attack}}
    if place == "name":
        return {"model_state_dict": {**WEIGHTS, (attack,): torch.zeros(1)}}
    if place == "optimizer_state_dict":
        return {place: {"state": {0: {"exp_avg": torch.zeros(2), "step": [attack]}}}}
    return {place: attack}


def test_the_attacks_would_work_on_a_careless_reader(tmp_path):
    for name, (attack, _) in attacks(tmp_path / "marker").items():
        if name.startswith(("numpy", "torch")):
            continue
        saved(tmp_path / "sat.pth", step=attack)
        torch.load(tmp_path / "sat.pth", weights_only=False)
        marker = tmp_path / "marker"
        assert marker.exists(), name
        marker.rmdir() if marker.is_dir() else marker.unlink()


@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "older"])
@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("name", NAMES)
def test_a_malicious_pickle_is_refused_and_never_run(path, marker, name, place, legacy):
    attack, asked = attacks(marker)[name]
    error = refusal(saved(path, legacy=legacy, **placed(attack, place)))
    assert error.code == "E410"
    assert asked in error.cause


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize("name", ["system", "exec", "pickle"])
def test_a_bare_pickle_is_refused_and_never_run(path, marker, name, protocol):
    attack, asked = attacks(marker)[name]
    path.write_bytes(pickle.dumps({"model_state_dict": attack}, protocol))
    error = refusal(path)
    assert error.code == ("E410" if protocol >= 2 else "E411")
    assert protocol < 2 or asked in error.cause


@pytest.mark.parametrize("protocol", [3, 4, 5])
def test_a_malicious_pickle_of_a_newer_protocol_is_named_too(path, marker, protocol):
    attack, asked = attacks(marker)["system"]
    torch.save({"model_state_dict": attack}, path, pickle_protocol=protocol)
    error = refusal(path)
    assert error.code == "E410"
    assert asked in error.cause


def test_the_environment_cannot_make_it_careless(path, marker, monkeypatch):
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
    attack, _ = attacks(marker)["system"]
    assert refusal(saved(path, step=attack)).code == "E410"


def test_what_other_packages_allow_pickles_is_not_allowed_here(path, marker):
    attack, _ = attacks(marker)["numpy object"]
    method, _ = attacks(marker)["method"]
    careless = [np.float64(0).__reduce__()[0], np.dtype, type(np.dtype("O")), Path.mkdir]
    with torch.serialization.safe_globals(careless):
        assert refusal(saved(path, step=attack)).code == "E410"
        assert refusal(saved(path, step=method)).code == "E410"
        assert set(careless) <= set(torch.serialization.get_safe_globals())


def test_reading_leaves_pickles_as_few_rights_as_before(path):
    before = set(torch.serialization.get_safe_globals())
    read_checkpoint(saved(path))
    refusal(saved(path, step="seven"))
    assert set(torch.serialization.get_safe_globals()) == before


# files that are no checkpoints


def nifti() -> bytes:
    return b"\x5c\x01\0\0" + bytes(340) + b"n+1\0" + bytes(800)


def archive(**files: bytes) -> bytes:
    held = io.BytesIO()
    with zipfile.ZipFile(held, "w") as written:
        for name, content in files.items():
            written.writestr(name, content)
    return held.getvalue()


POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:12ab\nsize 1403000000\n"
DISGUISES = {
    "empty": (b"", "is empty"),
    "a git-lfs pointer": (POINTER, "git-lfs"),
    "a scan": (nifti(), "NIfTI"),
    "a compressed scan": (gzip.compress(nifti()), "gzip"),
    "a web page": (b"\n<!DOCTYPE html><html><title>Sign in</title>", "web page"),
    "a text": ("Nous n\u2019avons pas ce fichier.\n".encode(), "text file.*Nous"),
    "safetensors": (b"\x08\0\0\0\0\0\0\0{      }", "safetensors"),
    "noise": (bytes(range(128, 256)) * 4, "80 81 82"),
    "an archive": (archive(readme=b"weights"), "none that torch.save wrote"),
    "an empty archive": (archive(), "none that torch.save wrote"),
    "a harmless pickle": (pickle.dumps([1, 2], 2), "none that torch.save wrote"),
}


@pytest.mark.parametrize("name", DISGUISES)
def test_a_file_that_is_no_checkpoint_is_named_for_what_it_is(path, name):
    content, said = DISGUISES[name]
    path.write_bytes(content)
    error = refusal(path)
    assert error.code == "E411"
    assert re.search(said, error.cause)


def test_a_missing_file_and_a_folder_are_refused(tmp_path):
    assert refusal(tmp_path / "gone.pth").code == "E405"
    assert refusal(tmp_path).code == "E411"


def test_a_torchscript_program_is_refused(path):
    class Double(torch.nn.Module):
        def forward(self, x):
            return 2 * x

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        torch.jit.trace(Double(), torch.zeros(1)).save(str(path))
    error = refusal(path)
    assert error.code == "E411"
    assert "TorchScript" in error.cause


CONTENTS = {
    "no weights": ({"model_state_dict": ...}, "no model_state_dict; it begins with step"),
    "no names": ({"model_state_dict": [torch.zeros(2)]}, "no model_state_dict"),
    "nothing": ({"model_state_dict": {}}, "without a single tensor"),
    "a string": ({"model_state_dict": {"bias": "0.5"}}, "has a str as 'bias'"),
    "a number": ({"model_state_dict": {"bias": 0.5}}, "has a float as 'bias'"),
    "a numbered tensor": ({"model_state_dict": {3: torch.zeros(2)}}, "as 3 among"),
    "sparse": ({"model_state_dict": {"bias": torch.eye(2).to_sparse()}}, "as 'bias' among"),
    "without data": ({"model_state_dict": {"bias": torch.empty(2, device="meta")}}, "'bias'"),
    "a step that is none": ({"step": "seven"}, "step 'seven'"),
    "half a step": ({"step": 0.5}, "step 0.5"),
    "lightning": (
        {"pytorch-lightning_version": "2.6", "model_state_dict": ...},
        "training run by textseg or Lightning",
    ),
}


@pytest.mark.parametrize("name", CONTENTS)
def test_a_checkpoint_without_sound_weights_is_refused(path, name):
    content, said = CONTENTS[name]
    error = refusal(saved(path, **content))
    assert error.code == "E411"
    assert said in error.cause


def test_a_list_of_tensors_is_no_checkpoint(path):
    torch.save([torch.zeros(2)], path)
    assert "holds a list" in refusal(path).cause


# files that are damaged


@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "older"])
@pytest.mark.parametrize("share", [0.02, 0.2, 0.5, 0.9, 0.995])
def test_a_truncated_file_is_refused(path, share, legacy):
    content = saved(path, legacy=legacy).read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    error = refusal(path)
    assert error.code == "E412"
    assert "cut off or damaged" in error.cause


def test_one_flipped_bit_among_the_weights_is_noticed(path):
    content = bytearray(saved(path).read_bytes())
    place = content.index(torch.arange(6.0).numpy().tobytes())
    content[place + 5] ^= 1
    path.write_bytes(content)
    error = refusal(path)
    assert error.code == "E412"
    assert "checksum" in error.cause


def test_an_archive_that_was_packed_again_is_refused(path):
    with zipfile.ZipFile(saved(path)) as before:
        records = {name: before.read(name) for name in before.namelist()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as after:
        for name, content in records.items():
            after.writestr(name, content)
    error = refusal(path)
    assert error.code == "E411"
    assert "packed again" in error.cause


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("kind", [torch.float32, torch.float16, torch.bfloat16])
def test_weights_that_are_not_finite_are_refused(path, value, kind):
    weights = {"bias": torch.tensor([0.0, value], dtype=kind)}
    error = refusal(saved(path, model_state_dict=weights))
    assert error.code == "E412"
    assert "bias hold NaN or infinity" in error.cause


def test_a_tensor_of_one_stored_number_and_any_shape_is_read_without_filling_it(path):
    huge = torch.zeros(()).expand(10**6, 10**6, 10**3)
    found = read_checkpoint(saved(path, model_state_dict={"bias": huge}))
    assert found.state["bias"].shape == huge.shape
