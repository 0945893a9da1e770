"""The sentences that reports of made-up tumors are put together from, some kept for testing.

A statement has *forms*; those in ``held_out`` appear only in reports of validation and test cases,
so that a model is tested on sentences it was never trained on. Sides, lobes and extents are named
by the same words in both. Slots in braces are filled by ``reports.py``. Spelling is American here;
half of the reports are turned into British spelling.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Wordings:
    """The forms of one statement, for training and for testing."""

    training: tuple[str, ...]
    held_out: tuple[str, ...]

    def of(self, *, held_out: bool) -> tuple[str, ...]:
        """The forms for one of the two uses."""
        return self.held_out if held_out else self.training


PLACE = Wordings(
    (
        "{side} {lobe} lobe",
        "{lobe} lobe on the {side}",
        "{initial} {lobe} lobe",
        "{side} {lobe} region",
        "{side}-sided {lobe} lobe",
        "{short} {lobe} region",
        "{lobe} region on the {side}",
    ),
    ("{lobe} lobe of the {side} hemisphere", "{side} {lobe} area", "{initial} {lobe} region"),
)
"""Where a lobe of the cerebrum is."""
CEREBELLAR_PLACE = Wordings(
    (
        "{side} cerebellar hemisphere",
        "cerebellum on the {side}",
        "{initial} cerebellar hemisphere",
        "{side} half of the cerebellum",
        "{side}-sided cerebellum",
        "{short} cerebellar hemisphere",
    ),
    ("cerebellar hemisphere on the {side}", "{initial} cerebellum"),
)
LOCATION = Wordings(
    (
        "There is a {mass} in the {place}.",
        "{mass} in the {place}.",
        "A {mass} is seen in the {place}.",
        "The {mass} is located in the {place}.",
        "The {place} contains a {mass}.",
        "The {place} harbors a {mass} of about {size}.",
        "A {mass} measuring {size} is centered in the {place}.",
        "{place}: {mass}, {size} in size.",
        "Location of the {mass}: {place}.",
        "The lesion area is in the {place}.",
    ),
    (
        "Within the {place} lies a {mass}.",
        "Imaging shows a {mass} of {size} arising in the {place}.",
        "The {mass} involves the {place}.",
        "A {mass} occupies the {place}.",
    ),
)
SEVERAL = Wordings(
    (
        "There are several small {masses} in the {place}.",
        "Multiple {masses} are seen in the {place}.",
        "The {place} contains several small {masses}.",
        "Several nodular {masses} are located in the {place}.",
        "{place}: multiple small {masses}.",
        "Multiple {masses}, the largest group in the {place}.",
    ),
    (
        "Within the {place} lie several {masses}.",
        "Multifocal {masses} involve the {place}.",
    ),
)
SIGNAL: Mapping[str, Wordings] = {
    "ring": Wordings(
        (
            "It shows ring enhancement on T1ce.",
            "After contrast the rim enhances.",
            "Ring-enhancing after gadolinium.",
            "Postcontrast T1 shows a thick enhancing ring.",
            "The margin enhances, the center does not.",
            "Peripheral enhancement with mixed high and low signals on T2.",
        ),
        ("A rim of enhancement surrounds the center.", "The ring enhances after contrast."),
    ),
    "solid": Wordings(
        (
            "It enhances homogeneously.",
            "Solid enhancement on T1ce.",
            "Bright and uniform enhancement after contrast.",
            "After gadolinium it enhances throughout.",
            "Hypointense on T1, with strong solid enhancement.",
            "Postcontrast T1 shows avid enhancement of the whole mass.",
        ),
        (
            "The whole mass enhances after contrast.",
            "Uniform solid enhancement on postcontrast T1.",
        ),
    ),
    "infiltrative": Wordings(
        (
            "It does not enhance.",
            "No enhancement after contrast.",
            "Hyperintense on FLAIR and T2, without enhancement.",
            "High FLAIR signal, no contrast uptake.",
            "Non-enhancing, low signal on T1.",
            "Infiltrative growth without enhancement after gadolinium.",
        ),
        (
            "After contrast there is no enhancement.",
            "FLAIR signal is high, and it is non-enhancing.",
        ),
    ),
    "cystic": Wordings(
        (
            "A cyst with an enhancing nodule.",
            "The cystic part follows fluid on all sequences, and a nodule enhances.",
            "Cystic with an enhancing mural nodule.",
            "Fluid signal on T2 with nodular enhancement.",
            "After contrast only the nodule in the wall enhances.",
            "Dark on T1 and bright on T2 as fluid is, with an enhancing nodule.",
        ),
        (
            "An enhancing nodule lies in the wall of the cyst.",
            "Cystic on T2, the mural nodule enhances.",
        ),
    ),
    "metastases": Wordings(
        (
            "They enhance homogeneously.",
            "All of them enhance after contrast.",
            "Nodular enhancement on T1ce.",
            "Small and round, with bright enhancement.",
            "After gadolinium each nodule enhances.",
            "Postcontrast T1 shows solid enhancement of every nodule.",
        ),
        ("Each of them enhances after contrast.", "Bright nodules on postcontrast T1."),
    ),
}
"""What a tumor looks like, by its kind."""
NO_EDEMA = Wordings(
    (
        "No surrounding edema.",
        "There is no edema.",
        "Without perifocal edema.",
        "No peritumoral edema is seen.",
        "Edema: none.",
        "The surrounding tissue shows no edema.",
        "Edema is absent.",
    ),
    ("No edema around the lesion.", "Perifocal edema is absent.", "There is no peritumoral edema."),
)
EDEMA = Wordings(
    (
        "There is {extent} surrounding edema.",
        "{extent} perifocal edema.",
        "The surrounding edema is {extent}.",
        "Peritumoral edema of {extent} extent.",
        "{extent} edema around the lesion.",
        "Edema: {extent}.",
        "It is surrounded by {extent} edema.",
        "{extent} edema extends into the adjacent white matter of the {place}.",
    ),
    (
        "The perifocal edema is {extent}.",
        "{extent} peritumoral edema is present.",
        "Surrounding tissue with {extent} edema.",
    ),
)
EXTENT_WORDS: Mapping[str, tuple[str, ...]] = {
    "mild": ("mild", "slight", "minimal"),
    "moderate": ("moderate", "medium", "intermediate"),
    "marked": ("marked", "extensive", "severe"),
}
"""Words for how far a swelling reaches; they are the same for training and testing."""
NECROSIS: Mapping[str, Wordings] = {
    "necrotic": Wordings(
        (
            "Central necrosis.",
            "The center is necrotic.",
            "There is necrosis within the lesion.",
            "Necrosis appears as low signal on T1.",
            "A necrotic core is present.",
            "Necrosis: present in the center.",
        ),
        ("The core shows necrosis.", "Necrosis is seen in the center of the lesion."),
    ),
    "cystic": Wordings(
        (
            "Large cystic component.",
            "The cyst takes up most of the lesion.",
            "Cystic change, no solid necrosis.",
            "The lesion is mainly cystic.",
            "Cystic rather than necrotic.",
            "Necrosis: none, but a cyst.",
        ),
        ("A cyst makes up most of it.", "The cystic component is large."),
    ),
    "none": Wordings(
        (
            "No necrosis.",
            "There is no necrosis.",
            "Necrosis is absent.",
            "Without necrotic areas.",
            "Necrosis: none.",
            "No sign of central necrosis.",
        ),
        ("Necrotic areas are absent.", "No necrosis is seen."),
    ),
}
VENTRICLES: Mapping[str, Wordings] = {
    "normal": Wordings(
        (
            "The ventricles are not compressed.",
            "Normal size of the ventricles.",
            "Ventricles unremarkable.",
            "The ventricular system is of normal width.",
            "Ventricles: normal.",
            "No compression of the ventricles.",
        ),
        ("The ventricles are of normal size.", "Ventricular compression is absent."),
    ),
    "pressed": Wordings(
        (
            "The adjacent ventricle is compressed.",
            "Compression of the ventricular system.",
            "The ventricles are slightly displaced.",
            "Mass effect on the lateral ventricle.",
            "Ventricles: compressed.",
            "Ventricular compression is seen.",
        ),
        ("The mass compresses the ventricle.", "The ventricular system is compressed."),
    ),
}
NEUTRAL = Wordings(
    (
        "No hemorrhage.",
        "No midline shift.",
        "The basal cisterns are open.",
        "No hydrocephalus.",
        "Gray and white matter are otherwise well differentiated.",
        "No restricted diffusion elsewhere.",
        "The orbits are unremarkable.",
        "Paranasal sinuses are clear.",
    ),
    ("There is no hemorrhage.", "No shift of the midline.", "No sign of hydrocephalus."),
)
"""Sentences that say nothing about the tumor."""
OTHER_SIDE = Wordings(
    (
        "No tumor on the {side}.",
        "The {side} hemisphere is free of tumor.",
        "There is no tumor in the {side} hemisphere.",
        "No evidence of tumor on the {side}.",
        "{side} hemisphere without tumor.",
        "On the {side} there is no tumor.",
    ),
    ("The {side} side shows no tumor.", "No tumor is seen in the {side} hemisphere."),
)
OLD_FINDING = Wordings(
    (
        "The abnormality in the {place} is an old finding.",
        "Known old scar in the {place}, unchanged.",
        "The {place} shows an old, stable scar.",
        "Unchanged old finding in the {place}.",
        "An old infarct in the {place}, not a tumor.",
        "The finding in the {place} is known, stable and benign.",
    ),
    ("In the {place} there is an old scar, unchanged.", "Old and stable finding in the {place}."),
)
"""What is said of the candidate that is not the tumor."""
MASSES = ("tumor", "mass", "neoplasm", "tumor mass", "mass lesion")
PLURALS = ("tumors", "masses", "nodules", "metastases", "tumor nodules")
BRITISH: Mapping[str, str] = {
    "tumor": "tumour",
    "edema": "oedema",
    "center": "centre",
    "hemorrhage": "haemorrhage",
    "gray": "grey",
    "harbor": "harbour",
}
