"""The words by which a sentence of a report tells what it speaks of, and whether it denies it."""

from __future__ import annotations

import re

LESION = re.compile(
    r"\b(?:lesions?|mass(?:es)?(?! effects?)|tumou?rs?|neoplasms?|glio\w+|astrocytomas?|"
    r"oligodendrogliomas?|meningiomas?|lymphomas?|metastas[ei]s|nodules?|abscess(?:es)?|"
    r"infarct(?:s|ions?)?|ha?emorrhages?|ha?ematomas?|plaques?|cysts?)\b",
    re.IGNORECASE,
)
EDEMA = re.compile(r"\b(?:o?edema\w*|swelling|swollen)\b", re.IGNORECASE)
NECROSIS = re.compile(r"\bnecro(?:sis|ses|tic)\b", re.IGNORECASE)
VENTRICLES = re.compile(
    r"\b(?:ventric\w+|hydrocephalus|compress(?:ion|ive|ed|es|ing)|efface(?:d|s|ment)|"
    r"midline(?: structures)? shifts?|shift(?:ed|ing)?(?: of the)? midline|mass effects?|"
    r"herniat(?:ion|ed|ing))\b",
    re.IGNORECASE,
)
PLACE = re.compile(
    r"\b(?:left|right|lt|rt|bilateral(?:ly)?|midline|lob(?:e|es|ar)|hemispher\w+|frontal|"
    r"parietal|temporal|occipital|(?:(?:fronto|parieto|temporo|occipito)-?\w+)|insular?|"
    r"cerebell\w+|thalam\w+|(?:brain ?)?stem|brainstem|pons|pontine|midbrain|medulla|"
    r"callos\w+|ganglia|caudate|putamen|hippocamp\w+|periventricular|intraventricular|"
    r"subcortical|cortical|cortex|gyr(?:us|i|al)|sulc(?:us|i)|vermis|cingul\w+|"
    r"white matter|posterior fossa|supratentorial|infratentorial)\b",
    re.IGNORECASE,
)
SIGNAL = re.compile(
    r"\b(?:signals?|intensit\w+|(?:hyper|hypo|iso)-?(?:intens\w+|dens\w+|attenuat\w+)|"
    r"(?:non-?)?enhanc(?:ing|ement|es?|ed)|bright|dark|heterogeneous|homogeneous|cystic|"
    r"diffusion|t1\w*|t2\w*|flair|dwi|adc)\b",
    re.IGNORECASE,
)
CHANGE = re.compile(
    r"\b(?:abnormal\w*|foc(?:us|i)|scars?|finding|atrophy|gliosis|encephalomalacia|calcifications?|collections?|"
    r"thickening|dilat(?:ed|ion|ation)|enlarged|enlargement|obstruct(?:ed|ion))\b",
    re.IGNORECASE,
)
DENIAL = re.compile(
    r"\b(?:no|not|none|nor|neither|never|without|absent|absence|lack(?:s|ing)?|negative|denie[sd]|"
    r"free of|ruled out|cannot)\b|\w+n['’]t\b",
    re.IGNORECASE,
)
NORMAL = re.compile(
    r"\b(?:normal|unremarkable|intact|preserved|resolved|excluded)\b", re.IGNORECASE
)
