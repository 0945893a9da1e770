"""What the words of a finding mean at the place where a report puts it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from textseg.knowledge import KnowledgeTree
from textseg.prompts.mention import Mention
from textseg.prompts.place import LESION_KINDS
from textseg.prompts.prompt import Modality, Resolution
from textseg.prompts.resolve import resolve
from textseg.prompts.wording import normalise, split_side

_UNSURE = frozenset({"fuzzy", "language"})
# kinds of structure that organs of all sorts share
_WIDE = frozenset({"region", "system", "cavity", "tissue", "lesion"})
# what leaves a finding what it is
_DESCRIPTIVE_WORDS = (
    "small large tiny massive multiple several few numerous single solitary acute chronic subacute "
    "recent old new mild moderate severe extensive diffuse focal focu simple complex benign "
    "enhancing heterogeneou homogeneou irregular round rounded oval hypodense hyperdense "
    "hypointense hyperintense stable residual recurrent trace minimal prominent"
)
_DESCRIPTIVE = frozenset(_DESCRIPTIVE_WORDS.split())


class LesionReader:
    """Finds the concept of a finding; what is not sure has none.

    Args:
        tree: The knowledge tree.
        modality: Of the scan that is reported on.
    """

    def __init__(self, tree: KnowledgeTree, *, modality: Modality | None = None) -> None:
        self._tree = tree
        self._modality = modality

    def read(
        self, mention: Mention, site: Sequence[str], *, whole: Sequence[str] = ()
    ) -> Resolution:
        """What the words of a finding mean, at its place if it has one.

        Args:
            mention: The finding.
            site: Ids of the structures it lies in.
            whole: Ids of the finding that it goes with, of which it may be a part.
        """
        own = self._read_alone(mention)
        if whole and (part := self._part_of(mention, whole)) is not None:
            return part
        if not site:
            return own
        placed = self._read_placed(mention, site)
        if mention.at is None and mention.own is not None and own.status == "ok":
            return own
        if own.status != "ok":
            return placed if placed is not None else self._general(mention, site) or own
        if placed is None:
            return own if self._fits(own, site) else _unknown(own, "does not occur there")
        above = {i for c in placed.concepts for i in (c, *self._tree.ancestors(c))}
        narrower = above >= set(own.concepts) or self._is_general(own)
        return placed if narrower or not self._fits(own, site) else own

    def _read_alone(self, mention: Mention) -> Resolution:
        """The meaning of the words themselves, without those that only describe."""
        plain = self._name_of(mention)
        sideless = split_side(normalise(plain))[1]
        answers = [self._lesion(text) for text in dict.fromkeys((mention.words, plain, sideless))]
        known = next((answer for answer in answers if answer.status == "ok"), None)
        if known is not None and self._is_general(known) and not self._is_told(mention):
            return _unknown(answers[0], "is not understood word by word")
        return known or answers[0]

    def _is_told(self, mention: Mention) -> bool:
        """Whether a place is known, or every word of a finding is."""
        words = split_side(normalise(mention.words))[1].split()
        known = {*_DESCRIPTIVE, *normalise(mention.head).split()}
        return bool(mention.at or mention.own) or known >= set(words)

    def _name_of(self, mention: Mention) -> str:
        """Side, organ and finding, of all the words."""
        words = mention.words.split()
        head = mention.head.split()
        own = self._own_words(mention)
        side = [mention.side] if mention.side in ("left", "right") and not own else []
        return " ".join([*side, *own, *head]) if own or side else " ".join(words[-len(head) :])

    def _own_words(self, mention: Mention) -> list[str]:
        if mention.own is None:
            return []
        return [self._tree[concept].name for concept in mention.own.concepts[:1]]

    def _read_placed(self, mention: Mention, site: Sequence[str]) -> Resolution | None:
        """The meaning at the place, if it is one and the same at all of them."""
        found: list[Resolution] = []
        for concept in site:
            names = [self._tree[concept].name]
            if mention.at is not None and mention.at.concepts == (concept,):
                names.append(mention.at.text)
            whats = [mention.words, mention.head, *_spots(mention)]
            texts = [f"{what} in the {name}" for what in whats for name in names]
            answers = [self._lesion(text) for text in dict.fromkeys(texts)]
            known = next((answer for answer in answers if answer.status == "ok"), None)
            if known is None:
                return None
            found.append(known)
        concepts = tuple(dict.fromkeys(c for answer in found for c in answer.concepts))
        return replace(found[0], concepts=concepts)

    def _lesion(self, text: str) -> Resolution:
        """What a text means if that is a lesion."""
        answer = resolve(text, self._tree, modality=self._modality)
        kinds = {self._tree[concept].kind for concept in answer.concepts}
        if answer.status == "ok" and (not kinds <= LESION_KINDS or answer.method in _UNSURE):
            return _unknown(answer, "is not the name of a finding")
        return answer

    def _general(self, mention: Mention, site: Sequence[str]) -> Resolution | None:
        """A finding that can be of any organ, as "cyst" is, where its place allows it."""
        named = [c.id for c in self._tree.lookup(normalise(mention.head)) if c.kind in LESION_KINDS]
        if len(named) != 1:
            return None
        found = Resolution(mention.words, "ok", tuple(named), "lesion", 0.8)
        return found if self._is_general(found) and self._fits(found, site) else None

    def _part_of(self, mention: Mention, whole: Sequence[str]) -> Resolution | None:
        """A part of the finding before, as "necrosis" is of a tumor."""
        answer = self._lesion(f"tumor {normalise(mention.head)}")
        if answer.status != "ok":
            return None
        wholes = {i for c in answer.concepts for i in self._tree.ancestors(c)}
        around = {i for c in whole for i in (c, *self._tree.ancestors(c))}
        tumors = {i for i in wholes & around if self._tree[i].site}
        return replace(answer, prompt=mention.words) if tumors else None

    def _fits(self, finding: Resolution, site: Sequence[str]) -> bool:
        """Whether a finding occurs in one of the organs that a place belongs to."""
        homes = {home for c in finding.concepts for home in self._tree[c].site}
        if not homes:
            return True
        around = {i for s in site for i in (s, *self._tree.ancestors(s))}
        wider = {i for home in homes for i in (home, *self._tree.ancestors(home))}
        shared = {i for i in around & wider if self._tree[i].kind not in _WIDE}
        return bool(shared or homes & around)

    def _is_general(self, finding: Resolution) -> bool:
        homes = {home for c in finding.concepts for home in self._tree[c].site}
        return all(self._tree[home].kind in _WIDE or home == "bone" for home in homes)

    def names_organ(self, mention: Mention, site: Sequence[str]) -> bool:
        """Whether the place is part of the name of a finding, as in "renal cyst"."""
        sideless = split_side(normalise(mention.words))[1]
        words = [word for word in sideless.split() if word not in _DESCRIPTIVE]
        if any(c.kind in LESION_KINDS for c in self._tree.lookup(" ".join(words))):
            return True
        homes = {
            self._tree[home].base
            for c in self._read_alone(mention).concepts
            for home in self._tree[c].site
        }
        return {self._tree[concept].base for concept in site} <= homes


def _spots(mention: Mention) -> list[str]:
    """What a bright spot is called where such spots have a name."""
    return ["hyperintensity"] if "hyperintense" in mention.words.lower().split() else []


def _unknown(answer: Resolution, why: str) -> Resolution:
    return Resolution(
        answer.prompt, "unsupported", method="lesion", warnings=(f"'{answer.prompt}' {why}.",)
    )
