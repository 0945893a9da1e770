"""The layout of TextBraTS: lists of cases in JSON, each with several channels and a report."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from textseg.datasets.layouts.found import Found, Holds, Split
from textseg.errors import InputError, ModelError
from textseg.imaging.channels import by_channel, channel_name

_CHANNELS = ("flair", "t1", "t1ce", "t2")
_LISTS: Mapping[str, Split] = {"Train.json": "train", "Test.json": "test"}
_ENDINGS = (".nii.gz", ".nii")
_TEXT, _FEATURES = ("report", "text"), "text_feature"
_SWAPPED, _GROUP = "swapped_report", ("group", "ambiguous")


class TextBraTSLayout(BaseModel):
    """Lists of cases, ``{"training": [{"fold", "image", "label", "text_feature"}, ...]}``.

    ``image`` has a file for each channel. A report is a text, or the file of one, under ``report``
    or ``text``; else the file of its features under ``text_feature``, or the ``.txt`` of that name.
    What could have been reported instead is under ``swapped_report``, and what cases are grouped by
    under ``group`` or ``ambiguous``.
    Paths start at the folder of the data, at the list, or at the root; ``.nii`` and ``.nii.gz``
    stand for each other.

    Attributes:
        lists: Files of the lists, and what their cases are for; a file that is not there is left
            out, if there is another.
        channels: Names of the channels, in the order of ``image``.
        data: Folder below the root at which paths start.
        validation_fold: Fold of the cases of ``train`` lists that are kept for validation; None
            keeps none.
        features: Take features where there is a text as well.

    Source: the lists beside the code of Shi et al., MICCAI 2025.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: Literal["textbrats"]
    lists: Mapping[str, Split] = Field(default=_LISTS, min_length=1)
    channels: tuple[str, ...] = _CHANNELS
    data: str = "."
    validation_fold: int | None = 0
    features: bool = False

    @field_validator("channels")
    @classmethod
    def _named_once(cls, channels: tuple[str, ...]) -> tuple[str, ...]:
        try:
            return tuple(by_channel((name, name) for name in channels))
        except InputError as error:
            raise ValueError(error.cause) from error

    @property
    def holds(self) -> Holds:
        """What the masks hold."""
        return "values"

    def find(self, root: Path, structures: Sequence[str]) -> list[Found]:
        """Scans with their masks, in the order of the lists.

        Args:
            root: Folder that holds the lists.
            structures: Not needed; masks hold every structure.

        Raises:
            ModelError: E406, there is no list, or one is damaged, names files that are not there,
                or has its channels in another order.
        """
        lists = {root / name: split for name, split in self.lists.items()}
        there = {path: split for path, split in lists.items() if path.is_file()}
        if not there:
            raise ModelError(
                f"holds no {' or '.join(self.lists)}.",
                code="E406",
                path=root,
                remedy="Put the lists into the folder of the data set.",
            )
        return [
            self._found(entry, split, path, root)
            for path, split in there.items()
            for entry in _read_entries(path)
        ]

    def _found(self, entry: Mapping[str, Any], split: Split, path: Path, root: Path) -> Found:
        """The scan, mask and report of an entry."""
        places = (root / self.data, path.parent, root)
        images = [_placed(name, places, path) for name in entry["image"]]
        label = _placed(entry["label"], places, path)
        if len(images) != len(self.channels):
            raise _bad(
                f"{label.name} has {len(images)} images, not one for each of "
                f"{', '.join(self.channels)}",
                path,
            )
        for channel, image in zip(self.channels, images, strict=True):
            _check_name(channel, image, self.channels, path)
        if split == "train" and entry.get("fold") == self.validation_fold is not None:
            split = "val"
        return Found(
            id=_stem(label).removesuffix("_seg"),
            sequence="",
            image=images[0],
            masks={"": label},
            channels=dict(zip(self.channels, images, strict=True)),
            report=self._report(entry, places, path),
            swapped_report=_report_of(entry, (_SWAPPED,), places, path),
            group=str(next((entry[key] for key in _GROUP if entry.get(key)), "")),
            split=split,
        )

    def _report(
        self, entry: Mapping[str, Any], places: Sequence[Path], path: Path
    ) -> str | Path | None:
        """The report of an entry."""
        text = _report_of(entry, _TEXT, places, path)
        features = entry.get(_FEATURES)
        if features is None or (text is not None and not self.features):
            return text
        beside = _looked_up(str(Path(features).with_suffix(".txt")), places)
        return beside if beside and not self.features else _placed(features, places, path)


def told_layout(root: Path) -> TextBraTSLayout | None:
    """The layout of a folder that has lists, its channels as the names of the files tell them.

    None if there is no list by the published names, or if it is a list of something else.
    """
    for path in (root / name for name in _LISTS):
        try:
            first = next(_read_entries(path), None)
        except ModelError:
            continue
        if first is not None:
            return TextBraTSLayout(kind="textbrats", channels=_told_channels(first["image"]))
    return None


def _told_channels(images: Sequence[str]) -> tuple[str, ...]:
    """A name for each image of a case: what its file ends with, or else its number."""
    words = [re.split(r"[-_. ]", _stem(Path(image)))[-1] for image in images]
    try:
        return tuple(by_channel((word, word) for word in words))
    except InputError:
        numbered = tuple(f"c{number}" for number in range(1, len(images) + 1))
        return _CHANNELS if len(images) == len(_CHANNELS) else numbered


def _read_entries(path: Path) -> Iterator[Mapping[str, Any]]:
    """The cases of a list, each with an image for every channel and a label."""
    try:
        entries = json.loads(path.read_bytes())["training"]
        for entry in entries:
            images, label = entry["image"], entry["label"]
            if isinstance(images, str) or not all(
                isinstance(name, str) for name in (*images, label)
            ):
                raise TypeError("image is a list of files, label is a file")
            yield entry
    except OSError as error:
        raise ModelError(f"cannot be read ({error.strerror}).", code="E406", path=path) from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise _bad(f"is no list of cases: {type(error).__name__} {error}", path) from error


def _report_of(
    entry: Mapping[str, Any], keys: Sequence[str], places: Sequence[Path], path: Path
) -> str | Path | None:
    """The text under the first key that has one, or its file."""
    text: str | None = next((entry[key] for key in keys if entry.get(key)), None)
    names_file = text is not None and text.lower().endswith((".txt", ".npy"))
    return _placed(text, places, path) if text is not None and names_file else text


def _placed(name: str, places: Sequence[Path], path: Path) -> Path:
    """A file that a list names."""
    found = _looked_up(name, places)
    if found is None:
        raise _bad(f"names {name!r}, which is not there", path, remedy="Complete the data set.")
    return found


def _looked_up(name: str, places: Sequence[Path]) -> Path | None:
    """The first file of that name, or of that name with the other ending of NIfTI."""
    ending = next((e for e in _ENDINGS if name.endswith(e)), "")
    names = [name.removesuffix(ending) + e for e in (ending, *_ENDINGS)] if ending else [name]
    return next((p / n for n in names for p in places if (p / n).is_file()), None)


def _check_name(channel: str, image: Path, channels: Sequence[str], path: Path) -> None:
    """Refuses a file that is called by another channel than the one it is listed as."""
    last = _stem(image).rpartition("_")[2]
    called = channel_name(last) if any(c.isalnum() for c in last) else ""
    if called in channels and called != channel:
        raise _bad(
            f"lists {image.name} as {channel}",
            path,
            remedy="Give the layout its channels in the order of the list.",
        )


def _stem(path: Path) -> str:
    ending = next((e for e in _ENDINGS if path.name.endswith(e)), path.suffix)
    return path.name.removesuffix(ending)


def _bad(cause: str, path: Path, *, remedy: str | None = None) -> ModelError:
    return ModelError(f"{cause}.", code="E406", path=path, remedy=remedy)
