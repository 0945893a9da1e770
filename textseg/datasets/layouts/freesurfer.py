"""A FreeSurfer subjects folder: ``SUBJECT/mri/norm.mgz`` and ``SUBJECT/mri/aseg.mgz``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict

from textseg.datasets.layouts.found import Found, Holds


class FreeSurferLayout(BaseModel):
    """Subjects as ``recon-all`` leaves them; values are those of FreeSurferColorLUT.txt.

    Attributes:
        image: File of the scan in each subject's ``mri`` folder.
        masks: File of the segmentation there.

    Source: Fischl, NeuroImage 2012.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: Literal["freesurfer"]
    image: str = "norm.mgz"
    masks: str = "aseg.mgz"

    @property
    def holds(self) -> Holds:
        """What the masks hold."""
        return "values"

    def find(self, root: Path, structures: Sequence[str]) -> list[Found]:
        """Subjects that have both files, in the order of their names.

        Args:
            root: Folder of the subjects.
            structures: Not needed; masks hold every structure.
        """
        return [
            Found(mask.parent.parent.name, "", image, {"": mask})
            for mask in sorted(root.glob(f"*/mri/{self.masks}"))
            if (image := mask.with_name(self.image)).is_file()
        ]
