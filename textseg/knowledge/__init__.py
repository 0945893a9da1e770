"""The anatomy tree: what structures exist, what they are called and how they relate."""

from textseg.knowledge.concept import Concept, Side
from textseg.knowledge.loading import TreeError
from textseg.knowledge.search import Match, search
from textseg.knowledge.tree import KnowledgeTree, load_tree, normalise
from textseg.knowledge.validation import Fault, validate_tree

__all__ = [
    "Concept",
    "Fault",
    "KnowledgeTree",
    "Match",
    "Side",
    "TreeError",
    "load_tree",
    "normalise",
    "search",
    "validate_tree",
]
