"""How data sets lie on disk; a layout is a module with one class and one line in ``Layout``."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from textseg.datasets.layouts.bids import BidsLayout
from textseg.datasets.layouts.dicom import DicomLayout
from textseg.datasets.layouts.files import FilesLayout
from textseg.datasets.layouts.found import Found
from textseg.datasets.layouts.freesurfer import FreeSurferLayout
from textseg.datasets.layouts.nnunet import NnUNetLayout
from textseg.datasets.layouts.textbrats import TextBraTSLayout

Layout = Annotated[
    FilesLayout | NnUNetLayout | BidsLayout | DicomLayout | FreeSurferLayout | TextBraTSLayout,
    Field(discriminator="kind"),
]

__all__ = [
    "BidsLayout",
    "DicomLayout",
    "FilesLayout",
    "Found",
    "FreeSurferLayout",
    "Layout",
    "NnUNetLayout",
    "TextBraTSLayout",
]
