"""What a model is asked so that it finds what a report states."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace

from textseg.knowledge import KnowledgeTree
from textseg.prompts.place import LESION_KINDS
from textseg.prompts.prompt import Resolution
from textseg.prompts.report import Finding
from textseg.prompts.wording import Side, normalise

_OF_PLACE = re.compile(r"place within the organ is not told apart|either side is taken")


@dataclass(frozen=True)
class FindingPrompt:
    """What a report states, once or more often, as a prompt.

    Attributes:
        text: A phrase for it, unlike that of any other.
        findings: Those of the report that say it.
        resolution: In what the model segments; ``unsupported`` if it cannot.
    """

    text: str
    findings: tuple[Finding, ...]
    resolution: Resolution

    @property
    def site(self) -> tuple[str, ...]:
        """Ids of the structures in which the report puts it."""
        return self.findings[0].site

    @property
    def side(self) -> Side | None:
        """The side on which the report puts it."""
        return self.findings[0].side


def as_prompts(
    findings: Sequence[Finding], tree: KnowledgeTree, supported: Collection[str]
) -> tuple[FindingPrompt, ...]:
    """A prompt for all findings of one kind at one place, in order, of those that are prompts.

    What the model does not segment itself becomes the kind of it that the model knows, or that of
    which it is a kind; the resolution's warnings say so.

    Args:
        findings: Of a report.
        tree: The knowledge tree.
        supported: Ids that the model segments.
    """
    alike: dict[tuple[Collection[str], Collection[str], str | None], list[Finding]] = {}
    for finding in findings:
        if finding.reason is None:
            key = (frozenset(finding.concepts), frozenset(finding.site), finding.side)
            alike.setdefault(key, []).append(finding)
    prompts: dict[str, FindingPrompt] = {}
    for said in alike.values():
        text = _distinct(_phrase(said[0], tree), prompts)
        meant = replace(_supported(said[0], tree, frozenset(supported)), prompt=text)
        prompts[text] = FindingPrompt(text, tuple(said), meant)
    return tuple(prompts.values())


def _phrase(finding: Finding, tree: KnowledgeTree) -> str:
    """Name and place: "brain lesion in left frontal lobe"."""
    what = " and ".join(tree[concept].name for concept in finding.concepts)
    if finding.site:
        return f"{what} in {' and '.join(tree[place].name for place in finding.site)}"
    has_side = any(tree[concept].side for concept in finding.concepts)
    if finding.side is None or has_side:
        return what
    return f"{what} on {'both sides' if finding.side == 'both' else f'the {finding.side}'}"


def _distinct(text: str, taken: Collection[str]) -> str:
    numbered = (text if n == 1 else f"{text} ({n})" for n in range(1, len(taken) + 2))
    return next(name for name in numbered if name not in taken)


def _supported(finding: Finding, tree: KnowledgeTree, supported: frozenset[str]) -> Resolution:
    """The finding in supported concepts, or why it cannot be had."""
    meaning = finding.resolution
    concepts: dict[str, None] = {}
    # where it lies is looked at when the mask is narrowed to its place
    warnings = [why for why in meaning.warnings if not _OF_PLACE.search(why)]
    for concept in meaning.concepts:
        found, why = _known_kind(concept, finding, tree, supported)
        if not found:
            warning = f"The model was not trained on {tree[concept].name}{why}."
            return Resolution(
                meaning.prompt, "unsupported", method=meaning.method, warnings=(warning,)
            )
        concepts |= dict.fromkeys(found)
        warnings += [why] if why else []
    return replace(meaning, concepts=tuple(concepts), warnings=tuple(warnings))


def _known_kind(
    concept: str, finding: Finding, tree: KnowledgeTree, supported: frozenset[str]
) -> tuple[tuple[str, ...], str]:
    """Supported concepts for one, and what is assumed with them, or why there are none."""
    if exact := tree.leaves(concept, supported):
        return exact, ""
    name = tree[concept].name
    if tree[concept].base in supported:
        return (tree[concept].base,), f"The side of {name} is told by its place alone."
    below = [kind for kind in sorted(supported) if concept in _kinds_above(kind, tree)]
    named = [kind for kind in below if _bears(finding, kind, tree)] if len(below) > 1 else below
    if len(named) == 1:
        why = f"Taken as {tree[named[0]].name}, the kind of {name} that the model knows."
        return (named[0],), why
    if below:
        kinds = ", ".join(tree[kind].name for kind in below)
        return (), f"; it knows several kinds of it: {kinds}"
    for above in _kinds_above(concept, tree):
        if above in supported:
            return (above,), f"Taken as {tree[above].name}, of which {name} is a kind."
    return (), ""


def _bears(finding: Finding, kind: str, tree: KnowledgeTree) -> bool:
    """Whether the name of a kind of lesion holds the word that the report has for it."""
    return normalise(finding.what).split()[-1] in normalise(tree[kind].name).split()


def _kinds_above(concept: str, tree: KnowledgeTree) -> Iterator[str]:
    """The lesions of which one is a kind, nearest first."""
    waiting = [*tree[concept].is_a]
    seen: set[str] = set()
    while waiting:
        kind = waiting.pop(0)
        if kind not in seen and tree[kind].kind in LESION_KINDS:
            seen.add(kind)
            yield kind
            waiting += tree[kind].is_a
