"""Finds the data folders, in a checkout or in an installed wheel, and the user's own folders."""

from __future__ import annotations

import os
from pathlib import Path

import platformdirs

_PACKAGE = Path(__file__).resolve().parent


def data_folder(name: str) -> Path:
    """Path of ``knowledge_tree``, ``datasets_registry`` or ``configs``.

    An installed wheel carries them inside the package; a checkout has them beside it.
    """
    packed = _PACKAGE / "_data" / name
    return packed if packed.is_dir() else _PACKAGE.parent / name


def models_folder() -> Path:
    """Path of the weights that ship with the package."""
    return _PACKAGE / "models"


def home() -> Path:
    """The user's textseg folder: ``TEXTSEG_HOME`` if set, else the platform's cache folder."""
    chosen = os.environ.get("TEXTSEG_HOME")
    return Path(chosen) if chosen else Path(platformdirs.user_cache_dir("textseg"))


def vocabularies_folder() -> Path:
    """Where the user's own vocabularies are: in ``TEXTSEG_HOME``, else among the user's data."""
    return _kept() / "vocabularies"


def user_models_folder() -> Path:
    """Where the user's own models are: in ``TEXTSEG_HOME``, else among the user's data."""
    return _kept() / "models"


def _kept() -> Path:
    """What must stay is not in the platform's cache folder, which may be emptied at any time.

    What was imported, trained or downloaded may not be at hand a second time.
    """
    chosen = os.environ.get("TEXTSEG_HOME")
    return Path(chosen or platformdirs.user_data_dir("textseg"))
