"""Sentences to make reports of."""

from __future__ import annotations

from hypothesis import strategies as st

SENTENCES = (
    "There is a mass in the left frontal lobe.",
    "It measures 3.2 x 4.1 cm.",
    "The tumour was seen by Dr. Smith, e.g. on FLAIR and T2.",
    "No hydrocephalus.",
    "Moderate oedema surrounds the lesion, approx. 12 mm wide.",
    "R. temporal horn is narrowed vs. the prior scan.",
    "Edema: marked, with mass effect.",
    "Is there midline shift?",
    "Central necrosis (see fig. 3) is suspected.",
)

sentences = st.lists(st.sampled_from(SENTENCES), min_size=1, max_size=6)
"""Any few of them, in any order."""

texts = st.text(alphabet="abLR .,:;-\n!?xTN'", max_size=60)
"""What no one would write."""
