"""How an unknown folder of scans and masks lies on disk, and what it calls its structures."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import takewhile
from pathlib import Path, PurePath
from typing import Any, NamedTuple

from textseg.datasets.layouts import (
    BidsLayout,
    DicomLayout,
    FilesLayout,
    Found,
    FreeSurferLayout,
    Layout,
    NnUNetLayout,
    bids,
)
from textseg.datasets.layouts.nnunet import DATASET_FILE, read_description
from textseg.datasets.layouts.textbrats import told_layout
from textseg.datasets.registry import load_registry
from textseg.errors import ModelError
from textseg.imaging.readers import dicom

_FREESURFER = "niivue-freesurfer"
"""Entry of the registry whose labels are those of FreeSurfer."""
_TEXTBRATS = "textbrats"
"""Entry of the registry whose labels are those of TextBraTS."""
_ENDINGS = (".nii.gz", ".nii", ".nrrd", ".mha", ".mhd", ".mgz", ".mgh")
_DICOM_SUFFIXES = ("", ".dcm", ".ima")
# folders of BIDS with scans that have no masks of anatomy
_NOT_ANATOMICAL = ("func", "dwi", "fmap", "perf")

_MASK = r"seg(?:mentation)?s?|masks?|labels?|gt|ground[-_]?truth|annotations?|contours?|rois?"
_SCAN = (
    r"ct|cta|cbct|mri?|pet|pt|suv|im(?:g|age|aging)?s?|scans?|vol(?:ume)?s?|data|"
    r"t[12][a-z]{0,5}|flair|pdw?|adc|dwi"
)
_LEADING = re.compile(rf"(?:{_MASK}|{_SCAN})(?=[-_. ]|\d|$)[-_. ]*", re.IGNORECASE)
_TRAILING = re.compile(rf"[-_. ]+(?:{_MASK}|{_SCAN})$", re.IGNORECASE)
_CHANNEL = re.compile(r"_\d{4}$")
_MASK_WORD = re.compile(rf"(?<![a-z])(?:{_MASK})(?![a-z])", re.IGNORECASE)
_ROLE = r"(?:{})(?:[-_]?(?:tr|ts|va|train\w*|test\w*|val\w*))?"
_MASK_FOLDER = re.compile(_ROLE.format(_MASK), re.IGNORECASE)
_ROLE_FOLDER = re.compile(_ROLE.format(f"{_MASK}|{_SCAN}"), re.IGNORECASE)


class Detected(NamedTuple):
    """A layout that fits a folder.

    Attributes:
        layout: How the folder lies on disk.
        names: What the masks hold, to what the data set calls it; several names where structures
            overlap, none for what it does not name. May lack values of a label map.
        scans: Sequence to what its scans are called, which may tell their modality.
        found: Its scans and masks; empty for a layout that nobody has tried yet.
    """

    layout: Layout
    names: Mapping[Any, tuple[str, ...]]
    scans: Mapping[str, str]
    found: Sequence[Found] = ()


def detect(root: Path) -> Detected:
    """The first layout by which the folder holds scans with masks, each scan once.

    Raises:
        ModelError: E406, it is no folder, no layout fits, or a file that describes it is damaged.
        InputError: A DICOM file cannot be read.
    """
    if not root.is_dir():
        raise ModelError("is no folder", code="E406", path=root)
    for look in LAYOUTS.values():
        for guess in look(root):
            found = guess.layout.find(root, [str(key) for key in guess.names])
            if found and len({(one.id, one.sequence) for one in found}) == len(found):
                return guess._replace(found=found)
    raise ModelError(
        f"holds no scans with masks in a layout textseg tells by itself: {'; '.join(LAYOUTS)}.",
        code="E406",
        path=root,
        remedy="Write the YAML by hand; datasets_registry/README.md says what a layout can be.",
    )


def _textbrats(root: Path) -> Iterator[Detected]:
    layout = told_layout(root)
    if layout is None:
        return
    known = load_registry()[_TEXTBRATS]
    is_alike = sorted(layout.channels) == sorted(known.modality["mr"])
    # scans of the same four channels have labels of the same meaning, as far as can be told
    names = known.labels if is_alike else {}
    yield Detected(layout, names, {channel: channel for channel in layout.channels})


def _described(root: Path) -> Iterator[Detected]:
    paths = [
        p for p in (root / DATASET_FILE, *sorted(root.glob(f"*/{DATASET_FILE}"))) if p.exists()
    ]
    if not paths:
        return
    if len(paths) > 1 and paths[0].parent != root:
        folders = ", ".join(path.parent.name for path in paths)
        raise ModelError(
            f"holds several data sets ({folders}).",
            code="E406",
            path=root,
            remedy="Name the folder of one of them.",
        )
    about = read_description(paths[0])
    layout = NnUNetLayout(kind="nnunet", folder=paths[0].parent.relative_to(root).as_posix())
    scans = {"" if len(about.channels) == 1 else name: name for name in about.channels}
    yield Detected(layout, about.labels, scans)


def _freesurfer(root: Path) -> Iterator[Detected]:
    if next(root.glob("*/mri/aseg.mgz"), None) is None:
        return
    names = load_registry()[_FREESURFER].labels
    for image in ("norm.mgz", "brain.mgz", "T1.mgz", "orig.mgz"):
        yield Detected(FreeSurferLayout(kind="freesurfer", image=image), names, {"": "mr"})


def _bids(root: Path) -> Iterator[Detected]:
    files = [path for end in bids.ENDINGS for path in sorted(root.glob(f"**/sub-*{end}"))]
    masks = [path for path in files if bids.stem(path).endswith("_dseg")]
    suffixes = dict.fromkeys(
        suffix
        for path in files
        if path.parent.name not in _NOT_ANATOMICAL
        and (suffix := bids.stem(path).rpartition("_")[2]) not in ("dseg", "probseg", "mask")
    )
    if not masks or not suffixes:
        return
    try:
        table = bids.read_names(masks[0], root)
    except (KeyError, TypeError, ValueError) as error:
        raise ModelError(
            f"has a dseg.tsv without the columns index and name ({error}).", code="E406", path=root
        ) from error
    names = {value: (name,) for value, name in table.items()}
    apart = {_derivatives(path.relative_to(root)) for path in masks}
    images = {s.lower(): s for s in suffixes} if len(suffixes) > 1 else {"": next(iter(suffixes))}
    plain = BidsLayout(
        kind="bids", images=images, derivatives=apart.pop() if len(apart) == 1 else ""
    )
    # where each scan has several masks, the kind of the first
    of_scan = {key for path in files for key in bids.entities(path) if path not in masks}
    chosen = {k: v for k, v in bids.entities(masks[0]).items() if k not in of_scan}
    for layout in (plain, plain.model_copy(update={"entities": chosen})):
        yield Detected(layout, names, images)


def _derivatives(mask: PurePath) -> str:
    """The folders above a mask's subject."""
    above = PurePath(*takewhile(lambda part: not part.startswith("sub-"), mask.parent.parts))
    return "" if above == PurePath() else above.as_posix()


def _one_file_each(root: Path) -> Iterator[Detected]:
    files = _files(root)
    scans: dict[PurePath, str] = {}
    for path in files:
        stem, ending = _split(path)
        if len(path.parts) > 1 and stem == path.parent.name:
            scans.setdefault(path.parent, f"{{case}}{ending}")
        elif len(path.parts) > 1 and re.fullmatch(_SCAN, stem, re.IGNORECASE):
            scans.setdefault(path.parent, path.name)
    for scan, _ in Counter(scans.values()).most_common():
        cases = {folder for folder, name in scans.items() if name == scan}
        above = "" if all(len(folder.parts) == 1 for folder in cases) else "**/"
        for (sub, ending), names in _structures(files, cases).items():
            layout = FilesLayout(
                kind="files",
                images={"": f"{above}{{case}}/{scan}"},
                masks=f"{above}{{case}}/{sub}{{structure}}{ending}",
            )
            yield Detected(layout, {name: (name,) for name in names}, dict(layout.images))


def _structures(
    files: Sequence[PurePath], cases: set[PurePath]
) -> dict[tuple[str, str], list[str]]:
    """Names of structures by the folder in each case that holds them and the ending of files."""
    seen: dict[tuple[str, str], Counter[str]] = defaultdict(Counter)
    for path in files:
        stem, ending = _split(path)
        for case, sub in ((path.parent, ""), (path.parent.parent, f"{path.parent.name}/")):
            is_role = re.fullmatch(f"{_MASK}|{_SCAN}", stem, re.IGNORECASE) is not None
            if case in cases and stem != case.name and not is_role:
                seen[sub, ending][stem] += 1
    # beside the scan, only a name that other cases have too is that of a structure
    return {
        place: names
        for place, counts in seen.items()
        if (names := sorted(stem for stem, n in counts.items() if n > 1 or place[0]))
    }


def _dicom(root: Path) -> Iterator[Detected]:
    if not any(p.suffix.lower() in _DICOM_SUFFIXES for p in root.rglob("[!.]*") if p.is_file()):
        return
    tags = ("SeriesInstanceUID", "SOPClassUID", "SegmentSequence", "StructureSetROISequence")
    names: dict[str, tuple[str, ...]] = {}
    homes: dict[str, Path] = {}
    for path, header in dicom.read_headers(root, tags):
        if header.get("SOPClassUID") not in (dicom.SEGMENTATION, dicom.STRUCTURE_SET):
            homes.setdefault(str(header.get("SeriesInstanceUID")), path.parent)
        for segment in header.get("SegmentSequence", ()):
            names[str(segment.SegmentLabel)] = (str(segment.SegmentLabel),)
        for roi in header.get("StructureSetROISequence", ()):
            names[str(roi.ROIName)] = (str(roi.ROIName),)
    folders = [
        _shared(mask.parent.relative_to(root), homes.get(one.series or "", mask).relative_to(root))
        for one in (DicomLayout(kind="dicom").find(root, ()) if names else ())
        for mask in one.masks.values()
    ]
    if not folders:
        return
    depth = max(1, min(len(folder.parts) for folder in folders))
    levels = [{folder.parts[level] for folder in folders} for level in range(depth - 1)]
    above = [
        level.pop() if len(level) == 1 else f"{{part{number}}}"
        for number, level in enumerate(levels)
    ]
    layout = DicomLayout(kind="dicom", cases="/".join((*above, "{case}")))
    yield Detected(layout, names, {})


def _shared(one: PurePath, other: PurePath) -> PurePath:
    """The deepest folder that holds both."""
    pairs = takewhile(lambda pair: pair[0] == pair[1], zip(one.parts, other.parts, strict=False))
    return PurePath(*(part for part, _ in pairs))


def _pairs(root: Path) -> Iterator[Detected]:
    files = _files(root)
    for numbered in (False, True):
        masks: dict[str, set[str]] = defaultdict(set)
        scans: dict[str, set[str]] = defaultdict(set)
        sequences: dict[str, str] = {}
        for name in _named(files, numbered=numbered):
            (masks if name.is_mask else scans)[name.pattern].add(name.case)
            sequences[name.pattern] = name.sequence
        for mask, cases in sorted(masks.items(), key=lambda item: -len(item[1])):
            # scans of other cases, such as those of a test set, have no masks
            paired = [scan for scan, has in scans.items() if 2 * len(has & cases) >= len(cases)]
            images: dict[str, str] = {}
            for scan in paired:
                # the same scan in two formats is one
                images.setdefault(sequences[scan], scan)
            if len(images) == 1:
                images = {"": paired[0]}
            if images:
                yield Detected(FilesLayout(kind="files", images=images, masks=mask), {}, images)


class _Name(NamedTuple):
    """What the path of a file says.

    Attributes:
        pattern: The path with the field ``{case}``, and one for each further folder that differs.
        case: What the field is here.
        is_mask: It holds a mask, not a scan.
        sequence: What tells it from other files of the case.
    """

    pattern: str
    case: str
    is_mask: bool
    sequence: str


def _named(files: Sequence[PurePath], *, numbered: bool) -> Iterator[_Name]:
    """Every file whose case its path tells; names of scans may end with a channel's number."""
    varied: dict[int, set[str]] = defaultdict(set)
    for path in files:
        for level, part in enumerate(path.parent.parts):
            varied[level] |= set() if _ROLE_FOLDER.fullmatch(part) else {part}
    for path in files:
        stem, ending = _split(path)
        start, end = _case_within(stem, numbered=numbered)
        homes = [part for part in path.parent.parts if not _ROLE_FOLDER.fullmatch(part)]
        if start == end and not homes:
            continue
        case = stem[start:end] or homes[-1]
        file = f"{stem[:start]}{{case}}{stem[end:]}" if start < end else stem
        folders = [
            "{case}"
            if part == case
            else f"{{part{level}}}"
            if part in varied[level] and len(varied[level]) > 1
            else part
            for level, part in enumerate(path.parent.parts)
        ]
        words = f"{stem[:start]} {stem[end:]}" if start < end else stem
        is_mask = _MASK_WORD.search(words) is not None
        is_mask |= any(_MASK_FOLDER.fullmatch(part) for part in path.parent.parts)
        sequence = words.strip("-_. ").lower() or path.parent.name.lower()
        yield _Name("/".join((*folders, file + ending)), case, is_mask, sequence)


def _case_within(stem: str, *, numbered: bool) -> tuple[int, int]:
    """Where the name of the case stands in a file's name, without the words for scan or mask."""
    start, end = 0, len(stem)
    if numbered and (channel := _CHANNEL.search(stem)):
        end = channel.start()
    while word := _LEADING.match(stem, start, end):
        start = word.end()
    while word := _TRAILING.search(stem, start, end):
        end = word.start()
    return start, end


def _files(root: Path) -> list[PurePath]:
    """Paths of all files in scan formats below the root, hidden ones left out."""
    paths = (path.relative_to(root) for path in sorted(root.rglob("[!.]*")))
    return [path for path in paths if path.name.lower().endswith(_ENDINGS)]


def _split(path: PurePath) -> tuple[str, str]:
    """Name and ending of a file in a scan format."""
    ending = next(end for end in _ENDINGS if path.name.lower().endswith(end))
    return path.name[: -len(ending)], path.name[-len(ending) :]


LAYOUTS: Mapping[str, Callable[[Path], Iterator[Detected]]] = {
    "Train.json and Test.json of TextBraTS": _textbrats,
    "dataset.json of nnU-Net or the Decathlon": _described,
    "SUBJECT/mri/aseg.mgz of FreeSurfer": _freesurfer,
    "BIDS with sub-*_dseg.nii.gz": _bids,
    "a scan and one file for each structure in a folder for each case": _one_file_each,
    "DICOM with SEG or RTSTRUCT": _dicom,
    "scans and masks of one name, told by images/ and labels/ or by _seg or _mask": _pairs,
}
"""Every layout in the order in which they are tried, by what it looks for."""
