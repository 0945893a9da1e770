"""What scores and the card say of scans made worse, and of masks on the wrong side."""

from __future__ import annotations

from types import MappingProxyType

import nibabel
import numpy as np
import pytest
import torch
from fakes import bare_case, tiny_manifest

from textseg.imaging import Geometry, Grid, as_volume, to_grid
from textseg.knowledge import load_tree
from textseg.outputs.manifest import ModelRecord, RunRecord
from textseg.outputs.segmentation import Prediction, PromptResult, Segmentation
from textseg.prompts import resolve
from textseg.training.card import render_card
from textseg.training.corruptions import CORRUPTIONS
from textseg.training.sampling import DomainConfig
from textseg.training.scores import ModelScores, score_model

VALUES = {"liver": 1, "kidney.left": 2, "kidney.right": 3, "spleen": 4, "gallbladder": 5}
SHAPE = (21, 18, 16)
SWAPPED = {"kidney.left": "kidney.right", "kidney.right": "kidney.left"}


def _oblique():
    """Voxels of 2 x 2.5 x 3 mm, turned about two axes, so that no axis is along the world's."""
    a, b = 0.2, -0.15
    about_z = np.array([[np.cos(a), -np.sin(a), 0], [np.sin(a), np.cos(a), 0], [0, 0, 1]])
    about_x = np.array([[1, 0, 0], [0, np.cos(b), -np.sin(b)], [0, np.sin(b), np.cos(b)]])
    affine = np.eye(4)
    affine[:3, :3] = about_z @ about_x @ np.diag([2.0, 2.5, 3.0])
    affine[:3, 3] = (-20, 13, 40)
    return affine


def _labels():
    """The spleen lies at the edge, where a smaller field of view does not reach."""
    labels = np.zeros(SHAPE, dtype=np.int16)
    labels[4:10, 4:14, 9:13] = VALUES["liver"]
    labels[4:7, 5:9, 4:8] = VALUES["kidney.left"]
    labels[14:17, 5:9, 4:8] = VALUES["kidney.right"]
    labels[0:2, 0:3, 0:3] = VALUES["spleen"]
    return labels


class Knowing:
    """Knows which structure is at which point of the world, whatever grid a scan is stored on.

    Attributes:
        answers: Concept -> the one whose place it gives in its stead; None for an empty mask.
        has_geometry: Whether it looks at points of the world, or at voxel numbers alone.
    """

    tree = load_tree()
    manifest = tiny_manifest(*VALUES)

    def __init__(self, answers=MappingProxyType({}), *, has_geometry=True):
        self._answers = answers
        self._has_geometry = has_geometry
        self._labels = _labels()
        self._geometry = Geometry(SHAPE, _oblique())
        self.seen = []

    def resolve(self, prompt):
        return resolve(prompt, self.tree, supported=tuple(VALUES))

    def _structures(self, geometry):
        index = np.argwhere(np.ones(geometry.shape, dtype=bool))
        if self._has_geometry:
            index = self._geometry.to_voxel(geometry.to_world(index)).round().astype(int)
        index = np.clip(index, 0, np.array(SHAPE) - 1)
        return self._labels[tuple(index.T)].reshape(geometry.shape)

    def __call__(self, scan, prompts, *, modality):
        volume = as_volume(scan, modality=modality)
        self.seen.append(volume)
        geometry = volume.geometry
        _, transform = to_grid(volume, Grid(geometry.spacing_mm, axes=geometry.orientation))
        structures = self._structures(geometry)
        results = []
        for prompt in prompts:
            meaning = self.resolve(prompt)
            [concept] = meaning.concepts
            place = self._answers.get(concept, concept)
            mask = np.isin(structures, [] if place is None else [VALUES[place]])
            found = Prediction(torch.from_numpy(mask.astype(np.float32)), transform)
            results.append(PromptResult(prompt, "ok", volume, meaning, 0.9, prediction=found))
        record = ModelRecord(name="tiny", version="1", sha256="0" * 64)
        run = RunRecord(model=record, device="cpu", precision="float32", timings_s={"total": 1.5})
        return Segmentation(volume, results, run=run)


@pytest.fixture
def cases(tmp_path):
    """Two scans of one data set and one of another, all alike."""
    image, label = tmp_path / "image.nii.gz", tmp_path / "label.nii.gz"
    noise = np.random.default_rng(0).normal(0, 300, SHAPE).astype(np.float32)
    nibabel.save(nibabel.Nifti1Image(noise, _oblique()), image)
    nibabel.save(nibabel.Nifti1Image(_labels(), _oblique()), label)
    about = {
        "split": "val",
        "modality": "ct",
        "image": image,
        "masks": {"": label},
        "labels": MappingProxyType({value: (name,) for name, value in VALUES.items()}),
        "annotated": tuple(VALUES),
        "complete": frozenset(VALUES),
        "licence": "CC0-1.0",
    }
    return [
        bare_case(id="one", dataset="phantom", **about),
        bare_case(id="two", dataset="phantom", **about),
        bare_case(id="three", dataset="other", **about),
    ]


def scored(model, cases, **settings):
    domain = DomainConfig(
        name="torso",
        datasets=[],
        modality="ct",
        spacing_mm=2.0,
        window=(16, 16, 16),
        validation=["phantom", "other"],
    )
    return score_model(model, [domain], cases, **settings)


def card_of(scores):
    return render_card(Knowing.manifest, scores, trained_on=[], tree=Knowing.tree)


def test_an_oracle_of_places_loses_nothing_to_any_corruption(cases):
    scores = scored(Knowing(), cases, corruptions=CORRUPTIONS)
    assert {score.corruption for score in scores.corrupted} == set(CORRUPTIONS)
    assert {(score.dice, score.clean_dice) for score in scores.corrupted} == {(1.0, 1.0)}


def test_a_model_that_looks_at_voxel_numbers_alone_is_told_by_other_orientations(cases):
    scores = scored(Knowing(has_geometry=False), cases[:1], corruptions=CORRUPTIONS)
    loses = {score.corruption for score in scores.corrupted if score.dice < score.clean_dice}
    assert loses == set(CORRUPTIONS) - {"noise"}


def test_only_the_first_scan_of_each_data_set_is_corrupted(cases):
    model = Knowing()
    scores = scored(model, cases, corruptions=CORRUPTIONS)
    assert [case.id for case in scores.cases] == ["one", "two", "three"]
    per_scan = [score.id for score in scores.corrupted]
    assert per_scan == ["one"] * len(CORRUPTIONS) + ["three"] * len(CORRUPTIONS)
    assert len(model.seen) == len(cases) + len(per_scan)


def test_without_corruptions_each_scan_is_predicted_once(cases):
    model = Knowing()
    assert scored(model, cases).corrupted == ()
    assert len(model.seen) == len(cases)


def test_a_structure_that_is_no_longer_shown_counts_on_neither_side(cases):
    scores = scored(Knowing({"spleen": "gallbladder"}), cases[:1], corruptions=CORRUPTIONS)
    found = {score.corruption: score for score in scores.corrupted}
    cropped, stored = found["smaller field of view"], found["stored as LPS"]
    assert (cropped.structures, cropped.dice, cropped.clean_dice) == (3, 1.0, 1.0)
    assert (stored.structures, stored.dice, stored.clean_dice) == (4, 0.75, 0.75)


@pytest.mark.parametrize(
    ("answers", "sided", "exchanged"),
    [
        ({}, 2, 0),
        (SWAPPED, 2, 2),
        ({"kidney.left": "kidney.right"}, 2, 1),
        # what was not found is on no side, and what is in neither place is not exchanged
        ({**SWAPPED, "kidney.left": None}, 1, 1),
        ({"kidney.left": "liver"}, 2, 0),
    ],
)
def test_masks_on_the_wrong_side_are_counted(cases, answers, sided, exchanged):
    [case] = scored(Knowing(answers), cases[:1]).cases
    assert (case.sided, case.exchanged) == (sided, exchanged)


def test_a_structure_alone_has_no_wrong_side(cases, tmp_path):
    labels = _labels()
    labels[labels == VALUES["kidney.right"]] = 0
    nibabel.save(nibabel.Nifti1Image(labels, _oblique()), tmp_path / "label.nii.gz")
    [case] = scored(Knowing(SWAPPED), cases[:1]).cases
    assert (case.sided, case.exchanged) == (0, 0)


def test_the_card_gives_what_each_corruption_takes_and_the_wrong_sides(cases):
    scores = scored(Knowing(SWAPPED, has_geometry=False), cases, corruptions=CORRUPTIONS)
    [lost] = [s for s in scores.corrupted if (s.id, s.corruption) == ("one", "stored as SAL")]
    assert lost.dice < lost.clean_dice
    rows = [
        line.strip("| ").split(" | ")
        for line in card_of(scores).splitlines()
        if line.startswith("| ")
    ]
    [names] = [row for row in rows if "stored as SAL" in row]
    [cells] = [row for row in rows if row[0] == "phantom" and "(" in row[1]]
    change = f"{lost.dice - lost.clean_dice:+.3f}"
    assert cells[names.index("stored as SAL")] == f"{lost.dice:.3f} ({change})"
    assert "Left and right: of 6 masks" in card_of(scores)
    assert "as well, 6 overlap the counterpart more" in card_of(scores)


def test_the_card_gives_wrong_sides_without_corruptions_too(cases):
    card = card_of(scored(Knowing(SWAPPED), cases[:1]))
    assert "Left and right: of 2 masks" in card
    assert "stored otherwise" not in card


def test_scores_from_before_load_and_their_card_says_nothing_of_either(cases):
    scores = scored(Knowing(), cases, corruptions=CORRUPTIONS).model_dump(mode="json")
    del scores["corrupted"]
    for case in scores["cases"]:
        del case["sided"], case["exchanged"]
    card = card_of(ModelScores.model_validate(scores))
    assert "Left and right" not in card
    assert "stored otherwise" not in card


def test_the_scores_of_the_model_that_ships_load(checkout):
    text = (checkout / "textseg" / "models" / "nano" / "scores.json").read_text(encoding="utf-8")
    assert ModelScores.model_validate_json(text).model == "nano"
