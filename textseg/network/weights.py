"""Models on disk: a folder with ``model.safetensors`` and the manifest that describes it.

The manifest is readable without torch, so that listing models and prompts stays quick.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple, TypeAlias, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from textseg.atomic import file_sha256
from textseg.errors import ModelError
from textseg.resources import models_folder, user_models_folder

if TYPE_CHECKING:
    from torch import Tensor

    from textseg.network.model import PromptedSegmenter
    from textseg.network.sat_text_encoder import SatTextEncoder
    from textseg.network.text_encoder import TextEncoder

    PromptEncoder: TypeAlias = TextEncoder | SatTextEncoder

WEIGHTS_FILE = "model.safetensors"
MANIFEST_FILE = "manifest.json"
DOWNLOADABLE = ("sat-nano", "sat-pro")
"""Names of the models that ``textseg models download`` knows."""

PIECES_FILE = "vocab.txt"
_TEXT_PREFIX = "text_encoder."
_NETWORK_PREFIX = "network."
Config = TypeVar("Config", bound=BaseModel)


class Domain(BaseModel):
    """Scans that share a working grid, and what can be found in them.

    Attributes:
        name: Short name such as ``torso-ct``.
        spacing_mm: Voxel size of the working grid, RAS.
        window: Sliding window in voxels.
        modalities: Modalities it was trained for.
        concepts: Ids it segments.
        axes: World direction that each axis of the working grid runs closest to.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    spacing_mm: tuple[float, float, float]
    window: tuple[int, int, int]
    modalities: tuple[Literal["ct", "mr", "pet"], ...]
    concepts: tuple[str, ...]
    axes: str = "RAS"


class ModelManifest(BaseModel):
    """What a model folder holds.

    Attributes:
        format: Version of this description.
        name: Name of the model.
        version: Version of the weights.
        licence: Licence of the weights.
        sha256: Of the weights file.
        files: sha256 of each other file that belongs to the model.
        source: sha256 of each file that the model was made from.
        network: Configuration of the network; ``None`` for a text encoder alone.
        text_encoder: Configuration of the text encoder.
        report_encoder: Configuration of what turns reports into tokens, where the network reads
            them; see ``textseg.network.report_encoder``.
        domains: What it can segment, where.
        mask_threshold: Probability above which a voxel belongs to a mask.
        presence_threshold: Presence below which a prompt is not found.
        preparation: How scans become the network's input; see ``textseg.imaging.preparation``.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    format: Literal[1] = 1
    name: str
    version: str
    licence: str
    sha256: str
    files: dict[str, str] = {}
    source: dict[str, str] = {}
    network: dict[str, object] | None
    text_encoder: dict[str, object]
    report_encoder: dict[str, object] | None = None
    domains: tuple[Domain, ...]
    mask_threshold: float = Field(default=0.5, gt=0, lt=1)
    presence_threshold: float = Field(default=0.5, ge=0, le=1)
    preparation: Literal["textseg", "sat"] = "textseg"

    @property
    def supported(self) -> frozenset[str]:
        """Ids of every concept some domain segments."""
        return frozenset(concept for domain in self.domains for concept in domain.concepts)

    @property
    def channels(self) -> tuple[str, ...]:
        """Names of the channels a scan must have, in order; none for a single unnamed one."""
        named = (self.network or {}).get("channels")
        return tuple(str(name) for name in named) if isinstance(named, list | tuple) else ()

    @property
    def reads_reports(self) -> bool:
        """Whether the network looks at a report beside the scan."""
        return (self.network or {}).get("report") is not None


class Weights(NamedTuple):
    """Tensors of a model file, by part."""

    network: dict[str, Tensor]
    text_encoder: dict[str, Tensor]


def find_model(name_or_path: str | Path) -> Path:
    """Folder of a model: a path, an embedded name, or a name in the user's models folder.

    Raises:
        ModelError: There is no such model; the error lists those there are.
    """
    path = Path(name_or_path)
    if (path / MANIFEST_FILE).is_file():
        return path
    for folder in (models_folder(), user_models_folder()):
        if (folder / path.name / MANIFEST_FILE).is_file() and path.name == str(name_or_path):
            return folder / path.name
    remedy = f"Available: {', '.join(list_models()) or 'none'}; or give a model folder."
    if str(name_or_path) in DOWNLOADABLE:
        remedy = f"To install it: textseg models download {name_or_path}"
    raise ModelError(f"no model named {str(name_or_path)!r}.", code="E401", remedy=remedy)


def list_models() -> tuple[str, ...]:
    """Names of the models that are embedded or in the user's models folder."""
    folders = [f for f in (models_folder(), user_models_folder()) if f.is_dir()]
    found = {path.parent.name for folder in folders for path in folder.glob(f"*/{MANIFEST_FILE}")}
    # a model that is being installed or removed has a dot before its name
    return tuple(sorted(name for name in found if not name.startswith(".")))


def read_model_manifest(folder: Path) -> ModelManifest:
    """The manifest of a model folder.

    Raises:
        ModelError: It is missing or malformed.
    """
    path = folder / MANIFEST_FILE
    try:
        return ModelManifest.model_validate_json(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:  # a ValidationError and bad UTF-8 are ValueErrors
        raise ModelError(f"the model manifest cannot be read: {error}", path=path) from error


def load_weights(name_or_path: str | Path, *, verify: bool = True) -> Weights:
    """Tensors of a model, in float32.

    Raises:
        ModelError: The file is missing, damaged, or not the one the manifest names.
    """
    folder = find_model(name_or_path)
    path = folder / WEIGHTS_FILE
    manifest = read_model_manifest(folder)
    if not path.is_file():
        raise ModelError("the weights file is missing.", code="E402", path=path)
    if verify and file_sha256(path) != manifest.sha256:
        raise ModelError(
            "the weights are damaged: their checksum is not the manifest's.",
            code="E402",
            path=path,
            remedy="Install the package or download the model again.",
        )
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        tensors = load_file(path)
    except SafetensorError as error:
        raise ModelError(f"the weights cannot be read: {error}.", code="E402", path=path) from error
    floats = {name: t.float() if t.is_floating_point() else t for name, t in tensors.items()}
    return Weights(_part(floats, _NETWORK_PREFIX), _part(floats, _TEXT_PREFIX))


def load_model(
    name_or_path: str | Path,
) -> tuple[PromptedSegmenter, PromptEncoder, ModelManifest]:
    """Network and text encoder of a model, in evaluation mode, and its manifest."""
    from textseg.network.model import NetworkConfig, PromptedSegmenter

    folder = find_model(name_or_path)
    manifest = read_model_manifest(folder)
    if manifest.network is None:
        raise ModelError("this is a text encoder alone; it cannot segment.", path=folder)
    weights = load_weights(folder)
    network = PromptedSegmenter(_config(NetworkConfig, manifest.network, folder))
    _fill(network, weights.network, folder)
    return network.eval(), _encoder(manifest, weights, folder), manifest


def load_encoder(name_or_path: str | Path) -> PromptEncoder:
    """Text encoder of a model, in evaluation mode."""
    folder = find_model(name_or_path)
    return _encoder(read_model_manifest(folder), load_weights(folder), folder)


def save_model(
    folder: Path,
    network: PromptedSegmenter | None,
    encoder: PromptEncoder,
    *,
    manifest: ModelManifest,
    half: bool = True,
) -> ModelManifest:
    """Writes a model folder; returns the manifest as written.

    The weights are written first and the manifest, which names their checksum, last.

    Args:
        folder: Where to.
        network: The network; None for a text encoder alone.
        encoder: The text encoder.
        manifest: What to say of them; the checksums are filled in.
        half: Write half precision.
    """
    from safetensors.torch import save_file

    tensors = {
        prefix + name: (_halved(tensor) if half else tensor).detach().cpu().contiguous()
        for prefix, module in ((_NETWORK_PREFIX, network), (_TEXT_PREFIX, encoder))
        if module is not None
        for name, tensor in module.state_dict().items()
    }
    folder.mkdir(parents=True, exist_ok=True)
    temporary = folder / f".{WEIGHTS_FILE}.partial"
    save_file(tensors, temporary)
    temporary.chmod(0o644)  # safetensors makes it private, which an installed package must not be
    temporary.replace(folder / WEIGHTS_FILE)
    files = dict(manifest.files)
    if (pieces := getattr(encoder, "pieces", None)) is not None:
        _write(folder / PIECES_FILE, "".join(f"{piece}\n" for piece in pieces))
        files[PIECES_FILE] = file_sha256(folder / PIECES_FILE)
    sums = {"sha256": file_sha256(folder / WEIGHTS_FILE), "files": files}
    written = manifest.model_copy(update=sums)
    _write(folder / MANIFEST_FILE, written.model_dump_json(indent=1) + "\n")
    return written


def _write(path: Path, text: str) -> None:
    partial = path.with_name(f".{path.name}.partial")
    partial.write_text(text, encoding="utf-8")
    partial.replace(path)


def _encoder(manifest: ModelManifest, weights: Weights, folder: Path) -> PromptEncoder:
    encoder: PromptEncoder
    if manifest.text_encoder.get("kind") == "sat":
        from textseg.network.sat_text_encoder import SatTextEncoder, SatTextEncoderConfig

        shape = _config(SatTextEncoderConfig, manifest.text_encoder, folder)
        encoder = SatTextEncoder(shape, _pieces(manifest, folder))
    else:
        from textseg.network.text_encoder import TextEncoder, TextEncoderConfig

        encoder = TextEncoder(_config(TextEncoderConfig, manifest.text_encoder, folder))
    _fill(encoder, weights.text_encoder, folder)
    return encoder.eval()


def _pieces(manifest: ModelManifest, folder: Path) -> list[str]:
    """The word pieces of a text encoder that has a vocabulary."""
    path = folder / PIECES_FILE
    if not path.is_file() or file_sha256(path) != manifest.files.get(PIECES_FILE):
        raise ModelError(
            "the vocabulary is missing, or it is not the one that the manifest names.",
            code="E402",
            path=path,
            remedy="Import or download the model again.",
        )
    return path.read_text(encoding="utf-8").removesuffix("\n").split("\n")


def _config(kind: type[Config], values: dict[str, object], folder: Path) -> Config:
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        raise ModelError(
            f"the manifest describes no network of this version: {error}", path=folder
        ) from error


def _fill(module: object, tensors: dict[str, Tensor], folder: Path) -> None:
    try:
        module.load_state_dict(tensors)  # type: ignore[attr-defined]
    except RuntimeError as error:
        raise ModelError(
            f"the weights do not fit the network the manifest describes: {error}",
            code="E402",
            path=folder,
        ) from error


def _halved(tensor: Tensor) -> Tensor:
    return tensor.half() if tensor.is_floating_point() else tensor


def _part(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name[len(prefix) :]: t for name, t in tensors.items() if name.startswith(prefix)}
