"""The anatomy tree: what structures exist, what they are called and how they relate."""

from textseg.knowledge.classes import ClassMatch, LabelClass, class_names, load_classes
from textseg.knowledge.concept import Concept, Side
from textseg.knowledge.export import to_json, to_obo
from textseg.knowledge.importing import ImportResult, import_vocabulary
from textseg.knowledge.loading import TreeError
from textseg.knowledge.search import Match, search
from textseg.knowledge.statistics import TreeStatistics, tree_statistics
from textseg.knowledge.tree import KnowledgeTree, load_tree, normalise
from textseg.knowledge.validation import Fault, validate_tree
from textseg.knowledge.vocabularies import (
    install_vocabulary,
    installed_vocabularies,
    load_model_tree,
    load_user_tree,
    model_vocabulary,
    remove_vocabulary,
)

__all__ = [
    "ClassMatch",
    "Concept",
    "Fault",
    "ImportResult",
    "KnowledgeTree",
    "LabelClass",
    "Match",
    "Side",
    "TreeError",
    "TreeStatistics",
    "class_names",
    "import_vocabulary",
    "install_vocabulary",
    "installed_vocabularies",
    "load_classes",
    "load_model_tree",
    "load_tree",
    "load_user_tree",
    "model_vocabulary",
    "normalise",
    "remove_vocabulary",
    "search",
    "to_json",
    "to_obo",
    "tree_statistics",
    "validate_tree",
]
