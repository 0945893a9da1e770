"""Understands what users write: from a prompt to concepts of the knowledge tree."""

from textseg.prompts.imaged import warn_of_modality
from textseg.prompts.prompt import Modality, Resolution, Status
from textseg.prompts.resolve import resolve

__all__ = ["Modality", "Resolution", "Status", "resolve", "warn_of_modality"]
