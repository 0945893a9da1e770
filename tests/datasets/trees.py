"""Writes tiny data sets in the layout of a registry entry, one voxel per label."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path

import nibabel
import numpy as np
import pydicom
import SimpleITK as sitk
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid
from scipy.io import savemat

from textseg.datasets.layouts.files import STRUCTURE
from textseg.datasets.layouts.pattern import Pattern

SPACING_MM = (0.5, 0.75, 3.0)
ITK_SUFFIXES = (".nrrd", ".mha", ".mhd")
NIBABEL_SUFFIXES = (".nii.gz", ".nii", ".mgz", ".hdr", ".img")
CASES = ("1", "2")


def shape_for(spec):
    """Odd, never a cube, with room for a voxel of each label and one that all may share."""
    return (7, 5, max(3, math.ceil((len(spec.labels) + 2) / 35)))


def place_of(spec, key):
    """The voxel of a label; (0, 0, 0) stays background."""
    return np.unravel_index(1 + list(spec.labels).index(key), shape_for(spec))


def write_tree(spec, root: Path) -> None:
    """Two cases of the data set, each with the voxel of every label."""
    write = {"files": _write_files, "nnunet": _write_nnunet, "bids": _write_bids}
    write |= {"dicom": _write_dicom, "freesurfer": _write_freesurfer}
    write |= {"textbrats": _write_textbrats}
    write[spec.layout.kind](spec, root)


def one_map(spec):
    data = np.zeros(shape_for(spec), np.int16)
    for key in spec.labels:
        data[place_of(spec, key)] = key
    return data


def structure_masks(spec):
    """One mask per label; the last voxel belongs to all of them."""
    masks = {}
    for key in spec.labels:
        masks[key] = np.zeros(shape_for(spec), np.uint8)
        masks[key][place_of(spec, key)] = 1
        masks[key][-1, -1, -1] = 1
    return masks


def scan_of(spec):
    return np.random.default_rng(3).integers(-900, 900, shape_for(spec)).astype(np.int16)


def _write_files(spec, root):
    layout = spec.layout
    patterns = [Pattern(text) for text in (*layout.images.values(), layout.masks)]
    fields = {name for pattern in patterns for name in pattern.fields} - {STRUCTURE}
    for case in CASES:
        values = {name: f"{name[0]}{case}" for name in fields}
        values |= {"weighting": case} if "weighting" in fields else {}
        values |= {"case": globs[0] + case} if (globs := _globs(layout.masks)) else {}
        for text in layout.images.values():
            _write_image(root / Pattern(text).fill(values), scan_of(spec))
        mask = Pattern(layout.masks)
        if layout.holds == "structures":
            for key, data in structure_masks(spec).items():
                _write_mask(root / mask.fill({**values, STRUCTURE: key}), data)
            _write_mask(root / mask.fill({**values, STRUCTURE: "something else"}), data)
        elif layout.holds == "channels":
            stacked = np.zeros((*shape_for(spec), max(spec.labels)), np.uint8)
            for key, data in structure_masks(spec).items():
                stacked[..., key - 1] = data
            _write_mask(root / mask.fill(values), stacked)
        else:
            _write_mask(root / mask.fill(values), one_map(spec), head_first=layout.head_first)


def _globs(text):
    """What fits the globs of a pattern, without their wild cards."""
    return [
        glob.replace("[56]", "5").replace("[0-4]", "3").rstrip("*")
        for glob in re.findall(r"case:([^}]+)", text)
    ]


def _write_nnunet(spec, root):
    folder = root / spec.layout.folder
    channels = spec.layout.sequences or ("x",)
    for case in CASES:
        data = np.stack([scan_of(spec)] * len(channels), axis=-1)
        image = data if len(channels) > 1 else data[..., 0]
        _write_image(folder / f"imagesTr/c{case}.nii.gz", image)
        _write_mask(folder / f"labelsTr/c{case}.nii.gz", one_map(spec))
    about = {
        "modality": {str(i): name for i, name in enumerate(channels)},
        "labels": {"0": "background", **{str(key): f"structure {key}" for key in spec.labels}},
        "training": [
            {"image": f"./imagesTr/c{case}.nii.gz", "label": f"./labelsTr/c{case}.nii.gz"}
            for case in CASES
        ],
    }
    (folder / "dataset.json").write_text(json.dumps(about))


def _write_bids(spec, root):
    layout = spec.layout
    entities = "".join(f"_{name}-{value}" for name, value in layout.entities.items())
    for case in CASES:
        for suffix in layout.images.values():
            _write_image(root / f"sub-{case}/anat/sub-{case}_{suffix}.nii.gz", scan_of(spec))
        folder = root / layout.derivatives / f"sub-{case}/anat"
        _write_mask(folder / f"sub-{case}{entities}_{layout.masks}.nii.gz", one_map(spec))


def _write_freesurfer(spec, root):
    for case in CASES:
        folder = root / f"bert{case}/mri"
        _write_image(folder / spec.layout.image, scan_of(spec).clip(0))
        _write_mask(folder / spec.layout.masks, one_map(spec))


def _write_textbrats(spec, root):
    entries = []
    for number, case in enumerate(CASES):
        name = f"Case_{case}/Case_{case}"
        images = [f"{name}_{channel}.nii.gz" for channel in spec.layout.channels]
        for place, image in enumerate(images):
            _write_image(root / image, scan_of(spec) + place)
        _write_mask(root / f"{name}_seg.nii.gz", one_map(spec))
        text = f"Mass in the left frontal lobe of case {case}."
        (root / f"{name}_flair_text.txt").write_text(text)
        entries.append(
            {
                "fold": number,
                "image": images,
                "label": f"{name}_seg.nii.gz",
                "text_feature": f"{name}_flair_text.npy",
            }
        )
    (root / next(iter(spec.layout.lists))).write_text(json.dumps({"training": entries}))


def _write_dicom(spec, root):
    import highdicom

    for case in CASES:
        folder = root / Pattern(spec.layout.cases).fill({"case": f"p{case}"})
        slices = _write_image(folder / "scan", scan_of(spec))
        masks = structure_masks(spec)
        algorithm = highdicom.AlgorithmIdentificationSequence(
            name="toy", version="1", family=pydicom.sr.codedict.codes.DCM.ArtificialIntelligence
        )
        described = [
            highdicom.seg.SegmentDescription(
                segment_number=number,
                segment_label=key,
                segmented_property_category=pydicom.sr.codedict.codes.SCT.Organ,
                segmented_property_type=pydicom.sr.codedict.codes.SCT.Liver,
                algorithm_type="AUTOMATIC",
                algorithm_identification=algorithm,
            )
            for number, key in enumerate(masks, start=1)
        ]
        # Z Y X, one plane per segment last
        pixels = np.stack([mask.T for mask in masks.values()], axis=-1)
        seg = highdicom.seg.Segmentation(
            source_images=[pydicom.dcmread(path) for path in slices],
            pixel_array=pixels,
            segmentation_type="BINARY",
            segment_descriptions=described,
            series_instance_uid=generate_uid(),
            series_number=9,
            sop_instance_uid=generate_uid(),
            instance_number=1,
            manufacturer="toy",
            manufacturer_model_name="toy",
            software_versions="1",
            device_serial_number="1",
            series_description="the masks",
        )
        seg.save_as(folder / "mask.dcm")


def affine_of():
    return np.diag([-SPACING_MM[0], -SPACING_MM[1], SPACING_MM[2], 1.0])


def _write_image(path, data):
    """A scan file, or a folder of DICOM slices where the name has no known suffix."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.name.endswith((".npy", *NIBABEL_SUFFIXES, *ITK_SUFFIXES)):
        return _write_file(path, data)
    return _write_series(path, data)


def _write_mask(path, data, *, head_first=False):
    """A mask file, or a folder of PNG slices where the name has no known suffix."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".mat":
        savemat(path, {"Mask": data.swapaxes(0, 1).astype(np.uint8)})
    elif path.name.endswith((".npy", *NIBABEL_SUFFIXES, *ITK_SUFFIXES)):
        _write_file(path, data)
    else:
        path.mkdir(exist_ok=True)
        for z in range(data.shape[2]):
            picture = sitk.GetImageFromArray(data[:, :, z].T.astype(np.uint8))
            number = data.shape[2] - z if head_first else z
            sitk.WriteImage(picture, str(path / f"slice_{number:03}.png"))


def _write_file(path, data):
    if path.name.endswith(ITK_SUFFIXES):
        image = sitk.GetImageFromArray(data.T)
        image.SetSpacing(SPACING_MM)
        sitk.WriteImage(image, str(path))
    elif path.suffix == ".npy":
        np.save(path, data)
    elif path.suffix == ".mgz":
        nibabel.save(nibabel.MGHImage(data.astype(np.float32), affine_of()), path)
    else:
        nibabel.save(nibabel.Nifti1Image(data, affine_of()), path)


def _write_series(folder, data):
    folder.mkdir(parents=True)
    series, study, frame = generate_uid(), generate_uid(), generate_uid()
    paths = []
    for z in range(data.shape[2]):
        paths.append(folder / f"i{z:03}.dcm")
        meta = FileMetaDataset()
        meta.MediaStorageSOPClassUID = CTImageStorage
        meta.MediaStorageSOPInstanceUID = generate_uid()
        meta.TransferSyntaxUID = ExplicitVRLittleEndian
        one = FileDataset(str(paths[-1]), {}, file_meta=meta, preamble=bytes(128))
        one.SOPClassUID, one.SOPInstanceUID = CTImageStorage, meta.MediaStorageSOPInstanceUID
        one.SeriesInstanceUID, one.StudyInstanceUID, one.FrameOfReferenceUID = series, study, frame
        one.PatientID = one.StudyID = one.AccessionNumber = "1"
        one.PatientName = "Doe^Jo"
        one.PatientBirthDate = one.PatientSex = one.StudyDate = one.StudyTime = ""
        one.ReferringPhysicianName = ""
        one.Modality, one.SeriesDescription, one.InstanceNumber = "CT", "scan", z + 1
        one.Columns, one.Rows = data.shape[:2]
        one.SamplesPerPixel, one.PhotometricInterpretation = 1, "MONOCHROME2"
        one.BitsAllocated = one.BitsStored = 16
        one.HighBit, one.PixelRepresentation = 15, 1
        one.PixelSpacing = [SPACING_MM[1], SPACING_MM[0]]  # between rows, then columns
        one.ImagePositionPatient = [0.0, 0.0, SPACING_MM[2] * z]
        one.ImageOrientationPatient = [1.0, 0.0, 0.0, 0.0, 1.0, 0.0]
        one.SliceThickness = SPACING_MM[2]
        one.RescaleSlope, one.RescaleIntercept = "1", "0"
        one.PixelData = np.ascontiguousarray(data[:, :, z].T).tobytes()
        one.save_as(paths[-1], enforce_file_format=True)
    return paths
