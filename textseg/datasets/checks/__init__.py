"""Checks of data sets before they are trained on: each case on its own, then all together.

A finding about a file that cannot be read has the name of its error code as kind, such as
``truncated`` or ``not-a-label-map``. The others are:

    non-finite-voxels   error     NaN or infinity in a scan
    geometry-mismatch   error     scan and mask lie on different grids
    unknown-label       error     a mask holds what the labels of its data set do not name
    sides-swapped       error     most pairs of a mask lie on the wrong sides
    pair-swapped        error     one pair does, among others that do not
    shifted-grid        warning   scan and mask lie a little apart
    empty-mask          warning   no voxel of a structure
    wrong-side          warning   a structure without its counterpart lies on the other side
    overlap             warning   structures overlap that the tree keeps apart
    not-hounsfield      warning   a CT without Hounsfield units
    odd-scan            warning   whatever else the reader noted about a scan
    same-scan           warning   two cases have one scan
    no-labels           error     no label of the data set has a concept
    never-shown         warning   a complete concept without a voxel in the whole data set
"""

from textseg.datasets.checks.all_cases import check_cases
from textseg.datasets.checks.one_case import CheckedCase, check_case
from textseg.datasets.checks.report import CheckReport, Finding

__all__ = ["CheckReport", "CheckedCase", "Finding", "check_case", "check_cases"]
