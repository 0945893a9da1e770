"""What came of a scan, for people: a table on stdout and a line on stderr for every caveat."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from textseg.cli.terminal import cells, make_table, print_json, print_rich, say, warn

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

    from textseg.outputs.manifest import Manifest, PromptRecord


@dataclass(frozen=True)
class Talk:
    """How much is said."""

    as_json: bool
    quiet: bool
    debug: bool
    is_batch: bool = False

    @property
    def has_table(self) -> bool:
        """Whether the answers are shown as tables."""
        return not (self.as_json or self.quiet)


class Explained(Protocol):
    """Anything that carries the resolver's remarks."""

    @property
    def status(self) -> str:
        """What came of a prompt."""

    @property
    def warnings(self) -> Sequence[str]:
        """Sentences for the user."""

    @property
    def suggestions(self) -> Sequence[str]:
        """Prompts that would be accepted."""


def note(explained: Explained) -> str:
    """Remarks and suggestions as one text, nothing said twice."""
    return _with_hints(" ".join(explained.warnings), explained.suggestions)


def reason(record: PromptRecord) -> str:
    """Why a prompt has no mask, and what to ask instead."""
    return _with_hints(record.reason or " ".join(record.warnings), record.suggestions)


def point_to_names(answers: Iterable[Explained]) -> None:
    """Says where the names are, if a prompt was refused and nothing could be suggested instead."""
    refused = {"reject", "unsupported"}
    if any(answer.status in refused and not answer.suggestions for answer in answers):
        say("What can be asked for: textseg concepts --supported")


def answered(
    manifest: Manifest,
    volumes_ml: Mapping[str, float | None],
    *,
    name: str,
    place: Path,
    talk: Talk,
) -> None:
    """Reports a scan that was segmented just now."""
    _warn_all(manifest, scan=f"{name}: " if talk.is_batch else "")
    if talk.as_json:
        _print_manifest(manifest, talk)
        return
    if not talk.has_table:
        return
    columns = ["prompt", "status", "ml", "presence", "file"]
    is_of_report = manifest.run.findings is not None
    if is_of_report:
        columns.insert(1, "sentence")
    table = make_table(*columns, numbers=("ml", "presence"))
    for record, volume in zip(manifest.prompts, volumes_ml.values(), strict=True):
        presence = "-" if record.presence is None else f"{record.presence:.2f}"
        shown = "-" if volume is None else f"{volume:.2f}"
        note = record.file or _hints(record.suggestions[:2]) or "-"
        prompt = [record.prompt, _sentences(record)] if is_of_report else [record.prompt]
        table.add_row(*cells(*prompt, record.status, shown, presence, note))
    print_rich(table, title=f"{name}: results in {place}")
    point_to_names(manifest.prompts)


def kept(manifest: Manifest, *, name: str, place: Path, talk: Talk) -> None:
    """Reports a scan whose answer is there already."""
    if not talk.quiet:
        say(f"kept {name}: {place} is complete")
    if talk.as_json:
        _print_manifest(manifest, talk)


def _warn_all(manifest: Manifest, *, scan: str) -> None:
    for warning in manifest.warnings:
        warn(f"{scan}{warning}")
    for record in manifest.prompts:
        if record.status == "ok":
            for warning in record.warnings:
                warn(f"{scan}'{record.prompt}': {warning}")
        else:
            warn(f"{scan}'{record.prompt}': {reason(record)}", kind=record.status)

    if manifest.run.findings is not None:
        for finding in manifest.run.findings.passed_over:
            warn(f"{scan}sentence {finding.sentence + 1}: {finding.reason}", kind="passed-over")


def _sentences(record: PromptRecord) -> str:
    """The sentences of the report that state it, the first of all being 1."""
    return ", ".join(str(n + 1) for n in sorted({said.sentence for said in record.said}))


def _print_manifest(manifest: Manifest, talk: Talk) -> None:
    # one line per scan, so that a stream of them can be read line by line
    print_json(manifest.model_dump(mode="json"), indent=None if talk.is_batch else 2)


def _with_hints(text: str, suggestions: Sequence[str]) -> str:
    hints = _hints([s for s in suggestions if f"'{s}'" not in text])
    return " ".join(part for part in (text, hints) if part)


def _hints(suggestions: Sequence[str]) -> str:
    return f"Try {', '.join(repr(s) for s in suggestions)}." if suggestions else ""
