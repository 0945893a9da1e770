"""Published models: where they come from, and how they are brought into a model folder."""

from __future__ import annotations

from textseg.zoo.download import Download, download_model
from textseg.zoo.entries import ENTRIES, Entry, HubFile, Licence, find_entry
from textseg.zoo.hub import Hub
from textseg.zoo.installed import remove_model, user_model_path, verify_model

__all__ = [
    "ENTRIES",
    "Download",
    "Entry",
    "Hub",
    "HubFile",
    "Licence",
    "download_model",
    "find_entry",
    "remove_model",
    "user_model_path",
    "verify_model",
]
