from __future__ import annotations

from fakes import one_thread

__all__ = ["one_thread"]
