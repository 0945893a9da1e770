"""Seeded stand-ins: phantoms, case lists, tiny networks and model folders."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch

from textseg.datasets import Case, LabelSpace
from textseg.imaging import intensity_scale
from textseg.knowledge import load_tree
from textseg.network.backbones import BackboneConfig
from textseg.network.model import NetworkConfig, PromptedSegmenter
from textseg.network.queries import query_features
from textseg.network.sat_text_encoder import SatTextEncoder, SatTextEncoderConfig
from textseg.network.text_encoder import TextEncoder, TextEncoderConfig
from textseg.network.weights import Domain, ModelManifest, save_model
from textseg.training.augment import GeometryConfig, QualityConfig
from textseg.training.domain_labels import DomainLabels
from textseg.training.sampling import DomainConfig
from textseg.training.training_case import TrainingCase

TINY_ENCODER = TextEncoderConfig(rows=997, width=12, hidden=24, features=20)
TINY_QUERY = query_features(TINY_ENCODER.features)

STILL = GeometryConfig(rotation_deg=0, scale=(1, 1), stretch=0, elastic_mm=0)
CLEAN = QualityConfig(blur_voxels=0, thick_slice=0, bias=0, noise=0, gamma=0)

LIVER, SPLEEN, KIDNEY_RIGHT, KIDNEY_LEFT, MIDDLE_LOBE, L3 = 5, 1, 2, 3, 13, 29
"""Raw values of the torso phantom, as ``totalsegmentator-dataset`` numbers them."""


def tiny_network(fusion: str = "late", **changes: Any) -> NetworkConfig:
    """A network of some ten thousand weights; windows are multiples of 4."""
    settings: dict[str, Any] = {
        "backbone": BackboneConfig(channels=(4, 8, 8), blocks=(1, 1, 1)),
        "fusion": fusion,
        "full_channels": 6,
        "prompt_maps": 3,
        "query_features": TINY_QUERY,
        "embedding": 18,
        "layers": 2,
        "heads": 3,
        "hidden": 24,
    }
    return NetworkConfig(**{**settings, **changes})


def seeded(make: Any, seed: int = 0) -> Any:
    """What ``make`` builds, with weights that follow from the seed; the global state is kept."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return make()


def tiny_segmenter(config: NetworkConfig | None = None, *, seed: int = 0) -> PromptedSegmenter:
    """A network with random weights, in evaluation mode."""
    return seeded(lambda: PromptedSegmenter(config or tiny_network()), seed).eval()


def tiny_encoder(seed: int = 0) -> TextEncoder:
    """A text encoder with random weights, in evaluation mode."""
    return seeded(lambda: TextEncoder(TINY_ENCODER), seed).eval()


SAT_PIECES = ("<s>", "<pad>", "</s>", "[UNK]", "[CLS]", "[SEP]", "left", "kidney", "liver", "##s")


def tiny_sat_encoder(features: int = 24, seed: int = 0) -> SatTextEncoder:
    """SAT's text encoder with few word pieces and random weights, in evaluation mode."""
    config = SatTextEncoderConfig(
        vocabulary=len(SAT_PIECES), features=features, layers=1, heads=3, hidden=12, positions=40
    )
    return seeded(lambda: SatTextEncoder(config, SAT_PIECES), seed).eval()


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    """Standard normal numbers."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def ellipsoid(
    shape: Sequence[int], centre: Sequence[float], radii: Sequence[float]
) -> np.ndarray[Any, np.dtype[np.bool_]]:
    """True inside; centre and radii as fractions of the shape."""
    total = np.zeros(shape)
    for axis, (size, middle, radius) in enumerate(zip(shape, centre, radii, strict=True)):
        view = [1, 1, 1]
        view[axis] = size
        place = (np.arange(size) + 0.5) / size
        total = total + (((place - middle) / radius) ** 2).reshape(view)
    return total < 1


def torso_labels(shape: Sequence[int] = (28, 24, 22), *, shift: float = 0.0) -> np.ndarray:
    """Right, anterior, superior: liver and right kidney lie at high X, spine at low Y."""
    labels = np.zeros(shape, dtype=np.int16)
    labels[ellipsoid(shape, (0.68, 0.6 + shift, 0.68), (0.2, 0.28, 0.22))] = LIVER
    labels[ellipsoid(shape, (0.25, 0.5 + shift, 0.7), (0.12, 0.16, 0.16))] = SPLEEN
    labels[ellipsoid(shape, (0.7, 0.35, 0.3), (0.1, 0.12, 0.18))] = KIDNEY_RIGHT
    labels[ellipsoid(shape, (0.3, 0.35, 0.3), (0.1, 0.12, 0.18))] = KIDNEY_LEFT
    labels[ellipsoid(shape, (0.5, 0.2, 0.5), (0.08, 0.1, 0.45))] = L3
    labels[ellipsoid(shape, (0.72, 0.5, 0.93), (0.14, 0.2, 0.06))] = MIDDLE_LOBE
    return labels


def head_labels(shape: Sequence[int] = (26, 30, 24)) -> np.ndarray:
    """A brain with FreeSurfer numbers inside a shell of an unnamed tissue (value 507)."""
    labels = np.zeros(shape, dtype=np.int16)
    right = np.arange(shape[0])[:, None, None] * 2 >= shape[0]
    for radii, pair in (((0.45, 0.45, 0.45), (507, 507)), ((0.38, 0.38, 0.38), (3, 42))):
        labels[ellipsoid(shape, (0.5, 0.5, 0.5), radii) & right] = pair[1]
        labels[ellipsoid(shape, (0.5, 0.5, 0.5), radii) & ~right] = pair[0]
    inner = ellipsoid(shape, (0.5, 0.5, 0.5), (0.28, 0.28, 0.28))
    labels[inner & right], labels[inner & ~right] = 41, 2
    labels[ellipsoid(shape, (0.65, 0.45, 0.4), (0.1, 0.14, 0.1))] = 53
    labels[ellipsoid(shape, (0.35, 0.45, 0.4), (0.1, 0.14, 0.1))] = 17
    return labels


def contrast(labels: np.ndarray, *, seed: int = 0, air: float = 0.0) -> np.ndarray:
    """An image in which each value of the label map has its own intensity, with some noise."""
    rng = np.random.default_rng(seed)
    levels = {int(value): 100.0 + 40.0 * k for k, value in enumerate(np.unique(labels))}
    levels[0] = air
    image = np.vectorize(levels.__getitem__)(labels).astype(np.float32)
    return image + rng.normal(0, 3, labels.shape).astype(np.float32)


def write_nifti(path: Path, data: np.ndarray, spacing: Sequence[float], *, flip_x=False) -> None:
    """A file in RAS order, or with the X axis running the other way and the same anatomy."""
    affine = np.diag([*spacing, 1.0])
    if flip_x:
        data = data[::-1]
        affine[0, 0] = -spacing[0]
        affine[0, 3] = spacing[0] * (data.shape[0] - 1)
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(np.ascontiguousarray(data), affine), path)


def case_entry(case_id: str, folder: str, modality: str, split: str, **rest: Any) -> dict[str, Any]:
    """One entry of a case list."""
    entry = {"id": case_id, "modality": modality, "split": split, "image": None, "label": None}
    paths = {k: f"{folder}/{v}" for k, v in rest.items() if k in {"image", "label"}}
    return {**entry, **rest, **paths}


def write_case_list(folder: Path) -> Path:
    """Two torso label maps, a scored CT, two head label maps and one real head pair.

    The second torso runs right to left in its file; the second head is the real pair, whose data
    set also names parts of the corpus callosum, of which the label maps say nothing.
    """
    spacing = (4.0, 4.5, 5.0)
    entries = []
    torso_names = {v: "" for v in (LIVER, SPLEEN, KIDNEY_RIGHT, KIDNEY_LEFT, MIDDLE_LOBE, L3)}

    def add(labels, image=None, *, names: Mapping[int, str], flip_x=False, **entry):
        place = entry["folder"]
        files = {"label": f"{entry['case_id']}_label.nii.gz"}
        write_nifti(folder / place / files["label"], labels, spacing, flip_x=flip_x)
        if image is not None:
            files["image"] = f"{entry['case_id']}_image.nii.gz"
            write_nifti(folder / place / files["image"], image, spacing, flip_x=flip_x)
        shape = {"shape": labels.shape, "spacing": spacing}
        entries.append(case_entry(**entry, **files, **shape, labels=names))

    torso = {"folder": "totalsegmentator-dataset-labelmaps", "modality": "CT (label map only)"}
    add(torso_labels(), names=torso_names, case_id="torso_a", split="train", **torso)
    add(
        torso_labels((26, 25, 24), shift=0.03),
        names=torso_names,
        flip_x=True,
        case_id="torso_b",
        split="train",
        **torso,
    )
    scored = torso_labels((24, 22, 20))
    add(
        scored,
        contrast(scored, air=-1000.0),
        names=torso_names,
        case_id="ts_example_ct",
        split="val",
        folder="totalsegmentator",
        modality="CT",
    )
    heads = {v: "" for v in (2, 3, 17, 41, 42, 53)}
    synthetic = {"folder": "synthseg-labelmaps", "modality": "MR (label map only)"}
    add(head_labels(), names=heads, case_id="synthseg_01", split="train", **synthetic)
    add(head_labels((24, 28, 26)), names=heads, case_id="synthseg_02", split="train", **synthetic)
    real = head_labels()
    real[12:14, 12:18, 15:17] = 253
    add(
        real,
        contrast(real),
        names={**heads, 253: ""},
        case_id="voxelmorph_test_scan",
        split="train",
        folder="voxelmorph-test-scan",
        modality="MR-T1",
    )
    for entry in entries:
        entry["unnamed_values"] = [507] if "17" in map(str, entry["labels"]) else []
    manifest = folder / "manifest.json"
    manifest.write_text(json.dumps(entries), encoding="utf-8")
    return manifest


def bare_case(**about: Any) -> Case:
    """A case without files, of which only what is given is known."""
    settings: dict[str, Any] = {
        "id": "",
        "dataset": "",
        "split": "train",
        "modality": "mr",
        "sequence": "",
        "image": None,
        "masks": {},
        "holds": "values",
        "labels": {},
        "unnamed": (),
        "annotated": (),
        "complete": frozenset(),
        "licence": "",
    }
    return Case(**{**settings, **about})


def apart(concepts: Sequence[str]) -> DomainLabels:
    """Labels of masks that name each of these concepts apart, in this order."""
    space = LabelSpace(tuple(concepts), load_tree())
    case = bare_case(
        labels={value: (concept,) for value, concept in enumerate(concepts, start=1)},
        annotated=tuple(concepts),
        complete=frozenset(concepts),
    )
    return DomainLabels.of([case], space)


def training_case(labels: torch.Tensor, *, count: int, **about: Any) -> TrainingCase:
    """A case in memory whose values are its labels plus one, for labels from IGNORE to any."""
    values = labels.numpy().astype(np.int32) + 1
    image = about.pop("image", None)
    table = torch.arange(-1, int(values.max()), dtype=torch.int16)
    spots = {k: (labels == k).nonzero() for k in range(1, count + 1) if bool((labels == k).any())}
    return TrainingCase(
        values=values,
        table=table,
        spots=spots,
        image=None if image is None else image.numpy(),
        scale=None if image is None else intensity_scale(image, "mr"),
        **{"dataset": "none", **about},
    )


def tiny_domains(**changes: Any) -> list[DomainConfig]:
    """A torso and a head domain over the case list above."""
    torso = DomainConfig(
        name="torso-ct",
        datasets=["totalsegmentator-dataset"],
        modality="ct",
        spacing_mm=5.0,
        window=(16, 20, 12),
        random_contrast=0.3,
        validation=["totalsegmentator-ct"],
        **changes,
    )
    head = DomainConfig(
        name="head-mr",
        datasets=["synthseg-labelmaps", "voxelmorph-test-scan"],
        modality="mr",
        spacing_mm=4.5,
        window=(20, 16, 12),
        share=0.5,
        strip=0.5,
        hold_out_every=3,
        **changes,
    )
    return [torso, head]


def tiny_manifest(*concepts: str) -> ModelManifest:
    """A manifest without a network, of one domain: a CT of the torso at 2 mm."""
    return ModelManifest(
        name="tiny",
        version="1",
        licence="CC0-1.0",
        sha256="0" * 64,
        network=None,
        text_encoder={},
        domains=(
            Domain(
                name="torso",
                spacing_mm=(2.0, 2.0, 2.0),
                window=(16, 16, 16),
                modalities=("ct",),
                concepts=concepts,
            ),
        ),
    )


def write_model(
    folder: Path,
    *,
    domains: Sequence[Domain] = (),
    network: PromptedSegmenter | None = None,
    encoder: TextEncoder | SatTextEncoder | None = None,
    **fields: Any,
) -> ModelManifest:
    """A model folder with tiny random weights; a text encoder alone without a network."""
    encoder = encoder or tiny_encoder()
    manifest = ModelManifest(
        name=folder.name,
        version="1.2.3",
        licence="CC0-1.0",
        sha256="",
        network=None if network is None else network.config.model_dump(mode="json"),
        text_encoder=encoder.config.model_dump(mode="json"),
        domains=tuple(domains),
        **fields,
    )
    return save_model(folder, network, encoder, manifest=manifest)


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    """Tensors here are so small that handing them to threads costs more than it saves."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def write_bert(folder, words, **settings):
    """A BERT of a few thousand random weights that knows some words, as Hugging Face keeps it."""
    from transformers import BertConfig, BertModel, BertTokenizer

    (folder / "vocab.txt").write_text("\n".join(words) + "\n")
    BertTokenizer(str(folder / "vocab.txt")).save_pretrained(folder)
    config = BertConfig(
        vocab_size=len(words),
        hidden_size=12,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
        **settings,
    )
    seeded(lambda: BertModel(config)).save_pretrained(folder)
    return folder
