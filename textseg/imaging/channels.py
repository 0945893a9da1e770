"""Scans of several named channels, such as FLAIR and T1 with contrast, on one grid of voxels."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import product
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from textseg.errors import InputError
from textseg.imaging.volume import Geometry, Volume

if TYPE_CHECKING:
    from textseg.imaging.readers import AnyModality

T = TypeVar("T")

_SPELLINGS = {
    "flair": ("t2f", "t2flair", "t2wflair", "flairt2"),
    "t1": ("t1n", "t1w", "t1native", "t1pre", "t1weighted"),
    "t1ce": (
        *("t1c", "t1gd", "t1gad", "t1post", "t1wce", "t1wc", "t1wgd", "t1cec", "t1cece", "t1cegd"),
        *("t1contrast", "t1postcontrast", "cet1", "cet1w", "t1wpost", "t1gadolinium"),
        *("t1cce", "t1wcce", "t1wcec", "t1wpostcontrast", "postcontrastt1", "postcontrastt1w"),
    ),
    "t2": ("t2w", "t2weighted"),
}
_CANONICAL = {spelling: name for name, others in _SPELLINGS.items() for spelling in (name, *others)}


def channel_name(text: str) -> str:
    """The one name of a channel, however it is spelled.

    The four sequences of brain tumour protocols have one name each; any other name is kept in
    lower case, with ``_`` for what is no letter or digit.

    Raises:
        InputError: There is no letter or digit in it.

    >>> [channel_name(t) for t in ("FLAIR", "t2f", "T1-CE", "t1gd", "T1 + C", "T1w", "t2w")]
    ['flair', 'flair', 't1ce', 't1ce', 't1ce', 't1', 't2']
    >>> channel_name(" DWI b1000 ")
    'dwi_b1000'
    """
    # radiologists write T1+ for what was taken after the contrast agent
    words = re.findall(r"[^\W_]+", text.lower().replace("+", "ce"))
    if not words:
        raise InputError(f"{text!r} is no name of a channel.", remedy="Name it such as flair.")
    return _CANONICAL.get("".join(words)) or "_".join(words)


def by_channel(named: Iterable[tuple[str, T]]) -> dict[str, T]:
    """What was given for each channel, in order, by its one name.

    Raises:
        InputError: A channel is given twice, or none at all.
    """
    found: dict[str, T] = {}
    spelled: dict[str, str] = {}
    for text, scan in named:
        name = channel_name(text)
        if name in found:
            both = "twice" if text == spelled[name] else f"twice, as {spelled[name]} and as {text}"
            raise InputError(
                f"channel {name} is given {both}.", remedy="Give each channel one scan."
            )
        found[name], spelled[name] = scan, text
    if not found:
        raise InputError("no channel is given.", remedy="Give at least one, such as flair.")
    return found


def read_channels(
    scans: Mapping[str, Any],
    *,
    modality: AnyModality = "auto",
    max_voxels: int = 1_500_000_000,
) -> Volume:
    """One volume of the scans of several channels, which lie on the same grid.

    Its place, source and header are those of the first channel, and ``sources`` has all.

    Args:
        scans: What was measured -> anything ``as_volume`` takes, of one 3D volume.
        modality: Of all channels; with ``auto``, a channel called by a sequence of MR is MR.
        max_voxels: See ``read_volume``.

    Raises:
        InputError: None is given or one twice; a scan is missing, damaged, or holds several
            volumes (E309); two scans lie on different grids (E321) or are of two modalities.
    """
    volumes = {
        name: _read(name, scan, modality, max_voxels)
        for name, scan in by_channel(scans.items()).items()
    }
    first, *others = volumes
    for name in others:
        _check_fits(first, volumes[first], name, volumes[name])
    # files keep voxels with the last axis slowest, and so does the joined array
    data = np.stack([v.data[0].T for v in volumes.values()]).transpose(0, 3, 2, 1)  # C X Y Z
    return replace(
        volumes[first],
        data=data,
        channels=tuple(volumes),
        sources=tuple(volume.source for volume in volumes.values()),
        warnings=tuple(f"channel {n}: {note}" for n, v in volumes.items() for note in v.warnings),
    )


def arranged(volume: Volume, channels: Sequence[str]) -> tuple[Volume, tuple[str, ...]]:
    """The volume with the channels a model takes, in its order, and the names of those missing.

    Args:
        volume: A scan of one channel, named or not, or of several.
        channels: Names, in the order of the model; none for one unnamed channel. A missing one
            is NaN throughout.

    Raises:
        InputError: The model takes other channels than the scan has, or it is not said which
            channel the scan is.
    """
    if len(channels) <= 1 and len(volume.data) == 1 and not _is_another(volume, channels):
        return volume, ()
    if volume.channels == tuple(channels):
        return volume, ()
    _check_known(volume, channels)
    missing = tuple(name for name in channels if name not in volume.channels)
    given = dict(zip(volume.channels, volume.data, strict=True))
    empty = np.full(volume.geometry.shape[::-1], np.nan, dtype=np.float32)  # Z Y X
    data = np.stack([given[name].T if name in given else empty for name in channels])
    return replace(volume, data=data.transpose(0, 3, 2, 1), channels=tuple(channels)), missing


def _read(name: str, scan: Any, modality: AnyModality, max_voxels: int) -> Volume:
    """The scan of one channel; an error says of which."""
    # the readers know of channels too
    from textseg.imaging.readers import as_volume

    assumed = "mr" if modality == "auto" and name in _SPELLINGS else modality
    try:
        volume = as_volume(scan, modality=assumed, max_voxels=max_voxels)
    except InputError as error:
        cause = error.cause if error.path else f"channel {name} {error.cause}"
        remedy = error.remedy
        if error.code == "E309":
            cause = f"as channel {name}, {error.cause}"
            remedy = "save each volume as a file of its own, and give each as a channel."
        raise InputError(cause, code=error.code, path=error.path, remedy=remedy) from error
    if len(volume.data) != 1:
        raise InputError(
            f"channel {name} has {len(volume.data)} channels itself.",
            path=volume.source.path,
            remedy="Give each channel a scan of its own.",
        )
    return volume


def _check_fits(first: str, reference: Volume, name: str, volume: Volume) -> None:
    """InputError unless two channels have the same voxels and the same kind of intensities."""
    if not reference.geometry.matches(volume.geometry):
        raise InputError(
            f"{_called(name, volume)} does not lie on the grid of {_called(first, reference)}: "
            f"{_difference(volume.geometry, reference.geometry)}.",
            code="E321",
            path=volume.source.path,
            remedy=f"Register it to {first} and resample it to the voxels of that scan.",
        )
    if reference.modality != volume.modality:
        kinds = [str(v.modality).upper() for v in (volume, reference)]
        raise InputError(
            f"{_called(name, volume)} seems to be {kinds[0]}, {_called(first, reference)} "
            f"{kinds[1]}; the channels of a scan are of one modality.",
            path=volume.source.path,
            remedy="If that was guessed wrongly, say which it is (--modality).",
        )


def _called(name: str, volume: Volume) -> str:
    path = volume.source.path
    return f"channel {name}" if path is None else f"channel {name} ({path})"


def _difference(one: Geometry, other: Geometry) -> str:
    """How two grids differ, in voxels and in mm.

    >>> geometry = Geometry((3, 3, 3), np.eye(4))
    >>> _difference(geometry, Geometry((3, 3, 5), np.diag([1.0, 1.0, 2.0, 1.0])))
    '3 x 3 x 3 voxels, not 3 x 3 x 5; spacing 1 x 1 x 1 mm, not 1 x 1 x 2; corners up to 6 mm apart'
    """
    told = []
    for what, of, unit in (("", "shape", " voxels"), ("spacing ", "spacing_mm", " mm")):
        these, those = (getattr(geometry, of) for geometry in (one, other))
        if not np.allclose(these, those, rtol=0, atol=1e-4):
            mine, theirs = (" x ".join(f"{n:g}" for n in sizes) for sizes in (these, those))
            told.append(f"{what}{mine}{unit}, not {theirs}")
    apart = np.linalg.norm(_corners(one) - _corners(other), axis=1).max()
    return "; ".join([*told, f"corners up to {apart:.3g} mm apart"])


def _corners(geometry: Geometry) -> np.ndarray[Any, np.dtype[np.float64]]:
    """World coordinates of the corner voxels, 8 3."""
    ends = product(*((0, size - 1) for size in geometry.shape))
    return geometry.to_world(np.array(list(ends), dtype=np.float64))


def _is_another(volume: Volume, channels: Sequence[str]) -> bool:
    """Whether a scan of one channel is named, and not as a model of one channel wants it."""
    return bool(channels) and bool(volume.channels) and volume.channels != tuple(channels)


def _check_known(volume: Volume, channels: Sequence[str]) -> None:
    """InputError unless every channel of the scan is one of several that a model takes."""
    given = ", ".join(volume.channels)
    if not channels:
        raise InputError(
            f"the model takes a single scan, not the channels {given or len(volume.data)}.",
            path=volume.source.path,
            remedy="Give one scan, or choose a model with channels (--model).",
        )
    takes = f"the model takes the channels {', '.join(channels)}"
    if not volume.channels:
        example = f"--channel {channels[0]}=FILE"
        raise InputError(
            f"{takes}, and it is not said which of them this scan is.",
            path=volume.source.path,
            remedy=f'Say it with {example}, or in Python {{"{channels[0]}": scan}}.',
        )
    unknown = [name for name in volume.channels if name not in channels]
    if unknown:
        raise InputError(
            f"{takes}, but not {' and '.join(unknown)}.",
            path=volume.source.path,
            remedy="Leave it out, or give it the name it has there.",
        )
