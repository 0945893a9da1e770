"""The models that can be downloaded by name: where their files are and under which licences."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Role = Literal["checkpoint", "text_encoder", "vocabulary"]


@dataclass(frozen=True)
class Licence:
    """Terms of a part of a model.

    Attributes:
        id: SPDX identifier, or the name by which its authors call it; ``unknown`` if none is given.
        covers: The part.
        text: What that means, in a sentence or two.
    """

    id: str
    covers: str
    text: str


@dataclass(frozen=True)
class HubFile:
    """A file in a repository of the Hugging Face hub.

    Attributes:
        role: What it is to the importer.
        repo: Owner and name of the repository.
        revision: Commit, or a branch where no commit is known.
        path: Its name there.
        about_bytes: Roughly its size; the hub states the exact one.
        sha256: Its checksum. Where none is known, the one that the hub states for this file counts.
    """

    role: Role
    repo: str
    revision: str
    path: str
    about_bytes: int
    sha256: str | None = None

    def __str__(self) -> str:
        return f"{self.path} of {self.repo}@{self.revision[:12]}"


@dataclass(frozen=True)
class Entry:
    """A published model.

    Attributes:
        name: What it is installed as.
        title: What it is, in one line.
        kind: Which importer makes a model folder of its files.
        version: Version of its weights.
        licences: Terms of each of its parts.
        files: What is downloaded, one file a role.
        installed_bytes: Roughly the size of the model folder.
        homepage: Where its authors describe it.
        citation: What its authors ask to be cited.
    """

    name: str
    title: str
    kind: Literal["sat"]
    version: str
    licences: tuple[Licence, ...]
    files: tuple[HubFile, ...]
    installed_bytes: int
    homepage: str
    citation: str

    @property
    def about_bytes(self) -> int:
        """Roughly what is downloaded."""
        return sum(file.about_bytes for file in self.files)

    @property
    def licence(self) -> str:
        """The terms of all parts, in the manner of SPDX."""
        return " AND ".join(licence.id for licence in self.licences)

    @property
    def repo(self) -> str:
        """The repository of the weights."""
        return self.files[0].repo


_SAT_REPO = "zzh99/SAT"
_SAT_REVISION = "67414a611d784946077bc6e2e133d0c1a15102f8"
_SAT_LICENCES = (
    Licence(
        id="unknown",
        covers="weights",
        text="The authors of SAT state none, so ask them what you may do with the weights.",
    ),
    Licence(
        id="ihtsdo-and-nlm-licences",
        covers="text encoder and vocabulary",
        text=(
            "They derive from BioLORD-2023-C, which was made with SNOMED CT and UMLS: users need "
            "the licences of IHTSDO (SNOMED International) and of the US National Library of "
            "Medicine."
        ),
    ),
)
_VOCABULARY = HubFile(
    role="vocabulary",
    repo="FremyCompany/BioLORD-2023-C",
    revision="main",
    path="vocab.txt",
    about_bytes=232_000,
)
_SAT_CITATION = (
    "Zhao et al., One Model to Rule them All: Towards Universal Segmentation for Medical Images "
    "with Text Prompts, arXiv:2312.17183."
)


def _sat_file(role: Role, path: str, about_bytes: int) -> HubFile:
    return HubFile(role, _SAT_REPO, _SAT_REVISION, path, about_bytes)


ENTRIES: tuple[Entry, ...] = (
    Entry(
        name="sat-nano",
        title="SAT-Nano: 497 structures and lesions in CT, MR and PET",
        kind="sat",
        version=_SAT_REVISION[:12],
        licences=_SAT_LICENCES,
        files=(
            _sat_file("checkpoint", "Nano/nano.pth", 1_400_000_000),
            _sat_file("text_encoder", "Nano/nano_text_encoder.pth", 440_000_000),
            _VOCABULARY,
        ),
        installed_bytes=900_000_000,
        homepage=f"https://huggingface.co/{_SAT_REPO}",
        citation=_SAT_CITATION,
    ),
    Entry(
        name="sat-pro",
        title="SAT-Pro: 497 structures and lesions in CT, MR and PET, the larger network",
        kind="sat",
        version=_SAT_REVISION[:12],
        licences=_SAT_LICENCES,
        files=(
            _sat_file("checkpoint", "Pro/SAT_Pro.pth", 5_900_000_000),
            _sat_file("text_encoder", "Pro/text_encoder.pth", 440_000_000),
            _VOCABULARY,
        ),
        installed_bytes=2_400_000_000,
        homepage=f"https://huggingface.co/{_SAT_REPO}",
        citation=_SAT_CITATION,
    ),
)


def find_entry(name: str) -> Entry | None:
    """The model that can be downloaded under this name, if there is one."""
    return next((entry for entry in ENTRIES if entry.name == name), None)
