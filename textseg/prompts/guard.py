"""Refuses text that cannot be a prompt, before anything tries to understand it."""

from __future__ import annotations

import re
import unicodedata

MAX_CHARACTERS = 200
"""Longer text is a report or an attack, not the name of a structure."""

_MARKUP = re.compile(r"[<>{}`$|=\\^]|\[[^\]]*\]\(|&[#\w]+;|--|/\*|::|\(\s*\)")
_PATH = re.compile(
    r"^\s*[~.]{0,2}/|\.\./|\w:[\\/]|https?:|\bwww\.|"
    r"\.(nii|gz|nrrd|mha|mhd|mgz|dcm|zip|json|ya?ml|py|sh|exe|txt|csv|png|jpe?g)\b",
    re.IGNORECASE,
)
_INSTRUCTION = re.compile(
    r"\b(ignore|disregard|forget|override)\b.*\b(instruction|rule|prompt|previous|above|prior)|"
    r"\b(system|assistant|user|developer)\s*:|"
    r"\bnew (?:task|instructions?|prompt|command)\b|"
    r"\byou are (now|an?)\b|\bact as\b|\bpretend\b|\bjailbreak\b|"
    r"\b(drop|alter|truncate)\s+table\b|\bselect\b.*\bfrom\b|\bdelete\s+(from|all|the)\b|"
    r"\b(sudo|eval|exec|import os)\b|\brm -",
    re.IGNORECASE | re.DOTALL,
)
# what for, how and why ask for words, not for a mask
_QUESTION = re.compile(
    r"^\W*(?:so |and |please |can you )*(?:"
    r"explain|describe|define|tell me (?:about|how|why|what)|summari[sz]e|translate|"
    r"how many\b|what (?:do|does|did|happens|causes?)\b|how (?:do|does|did|to|can|should)\b|why\b|"
    r"what(?:'s| is| are) the (?:function|purpose|role|cause|treatment|prognosis|meaning)\b)",
    re.IGNORECASE,
)
_PICTURES = re.compile("[\u2600-\u27bf\U0001f000-\U0001faff]")
# control, format (zero width, direction), surrogate, private use, unassigned
_HIDDEN = frozenset({"Cc", "Cf", "Cs", "Co", "Cn"})
_SPACES = frozenset("\t\n\r")


def reason_to_refuse(prompt: str) -> str | None:
    """Why the text cannot be a prompt, as a sentence, or ``None`` when it can.

    >>> reason_to_refuse("left kidney") is None
    True
    >>> reason_to_refuse("  ")
    'The prompt is empty.'
    """
    if len(prompt) > MAX_CHARACTERS:
        return f"The prompt has {len(prompt)} characters; at most {MAX_CHARACTERS} are read."
    if not prompt.strip():
        return "The prompt is empty."
    if any(unicodedata.category(c) in _HIDDEN and c not in _SPACES for c in prompt):
        return "The prompt contains control or invisible characters."
    if _MARKUP.search(prompt):
        return "The prompt contains markup or program code."
    if _PATH.search(prompt):
        return "The prompt looks like a file path or an address."
    if _INSTRUCTION.search(prompt):
        return "The prompt looks like an instruction, not the name of a structure."
    if _QUESTION.search(prompt):
        return "The prompt asks for an explanation, not for a structure."
    if _PICTURES.search(prompt):
        return "The prompt contains pictures; write the name of the structure."
    return None
