"""What no scan resolves: cells, what lies within them, and the molecules they are made of."""

from __future__ import annotations

import re

from textseg.prompts.lesion import mentions_lesion
from textseg.prompts.prompt import Reading, Scope, refuse

_CELL = re.compile(r"\w{3,}(?:cyte|blast|clast|(?<!so)phage)|(?:\w*[^aeiou])?neuron|\w{4,}ocytic")
_PARTICLES = (
    "cell organelle nucleolus mitochondria mitochondrion ribosome lysosome chromosome cytoplasm "
    "synapse axon dendrite sarcomere myofibril nephron glomerulus podocyte alveolus alveoli villus "
    "microvillus acinus sinusoid capillary cilia cilium dna rna mrna gene protein enzyme hormone "
    "antibody receptor molecule hemoglobin insulin glucagon collagen keratin elastin albumin "
    "creatinine bilirubin glucose cholesterol lipid dopamine serotonin melanin amyloid cytokine "
    "bacteria bacterium virus"
)
_PARTICLE_WORDS = frozenset(_PARTICLES.split())
# spaces filled with air are called cells as well
_LARGE = frozenset({"air", "mastoid", "ethmoid", "ethmoidal"})
_SITES = {
    "hepatocyte": "liver",
    "bilirubin": "liver",
    "nephron": "kidney",
    "glomerulus": "kidney",
    "podocyte": "kidney",
    "creatinine": "kidney",
    "alveolus": "lung",
    "alveoli": "lung",
    "pneumocyte": "lung",
    "neuron": "brain",
    "synapse": "brain",
    "axon": "white matter",
    "astrocyte": "brain",
    "cardiomyocyte": "myocardium",
    "insulin": "pancreas",
    "glucagon": "pancreas",
    "osteoblast": "bone",
    "osteocyte": "bone",
    "osteoclast": "bone",
    "adipocyte": "fat",
    "myocyte": "muscle",
    "myofibril": "muscle",
    "keratinocyte": "skin",
    "melanocyte": "skin",
    "villus": "small bowel",
}


def read(text: str, scope: Scope) -> Reading | None:
    """A refusal of anything below the size of a voxel, with the organ it is found in."""
    words = text.split()
    if not _LARGE.isdisjoint(words) or mentions_lesion(text):
        return None
    small = next((word for word in words if word in _PARTICLE_WORDS or _CELL.fullmatch(word)), None)
    if small is None or _is_curated(text, scope):
        return None
    why = f"'{small}' is below what a scan resolves."
    instead = (_SITES[small],) if small in _SITES else ()
    return refuse("reject", why, method="microscopic", suggestions=instead)


def _is_curated(text: str, scope: Scope) -> bool:
    return any(concept.curated for concept in scope.tree.lookup(text))
