"""Advice of Lightning, torch and jsonargparse that short runs of tests need not hear."""

from __future__ import annotations

import pytest

TRAINING = [
    pytest.mark.filterwarnings(f"ignore:{advice}")
    for advice in (
        "The '(train|val)_dataloader' does not have many workers",
        "The number of training batches .* is smaller than",
        "You passed in a `val_dataloader` but have no",
        "GPU available but not used",
        "Precision bf16-mixed is not supported by the model summary",
        ".*LeafSpec.* is deprecated:FutureWarning",
        ":jsonargparse._deprecated.JsonargparseDeprecationWarning",
    )
]
"""Marks of a test, or of a whole module, that trains."""
