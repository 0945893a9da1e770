"""Scoring whole scans and writing the card, with a model that answers from a script."""

from __future__ import annotations

from types import MappingProxyType
from typing import Any

import nibabel
import numpy as np
import pytest
import torch
from fakes import tiny_manifest

from textseg.datasets import Case, LabelSpace
from textseg.errors import ModelError
from textseg.imaging import Grid, Volume, as_volume, to_grid
from textseg.knowledge import load_tree
from textseg.outputs.manifest import ModelRecord, RunRecord
from textseg.outputs.segmentation import Prediction, PromptResult, Segmentation
from textseg.prompts import resolve
from textseg.resources import models_folder
from textseg.training.aggregation import auroc
from textseg.training.attempts import ATTEMPTS_FILE, Attempt, attempts_section, read_attempts
from textseg.training.card import render_card
from textseg.training.scores import ModelScores, read_scan, score_scan

CONCEPTS = ("liver", "spleen", "gallbladder")
MANIFEST = tiny_manifest(*CONCEPTS)


class Scripted:
    """Finds the liver exactly, half of the spleen, and a gallbladder that is not there."""

    manifest = MANIFEST
    tree = load_tree()

    def __init__(self, reference: np.ndarray) -> None:
        half = reference == 2
        half[:, :6] = False
        self._masks = {"liver": reference == 1, "spleen": half, "gallbladder": reference == 0}

    def resolve(self, prompt: str) -> Any:
        return resolve(prompt, self.tree, supported=CONCEPTS)

    def __call__(self, scan: Any, prompts: Any, *, modality: Any) -> Segmentation:
        volume: Volume = as_volume(scan, modality=modality)
        _, transform = to_grid(volume, Grid((2.0, 2.0, 2.0)))
        results = [
            PromptResult(
                prompt,
                "ok",
                volume,
                self.resolve(prompt),
                0.9 if prompt != "gallbladder" else 0.6,
                prediction=Prediction(
                    torch.from_numpy(self._masks[prompt].astype(float)), transform
                ),
            )
            for prompt in prompts
        ]
        model = ModelRecord(name="tiny", version="1", sha256="0" * 64)
        run = RunRecord(model=model, device="cpu", precision="float32", timings_s={"total": 1.5})
        return Segmentation(volume, results, run=run)


@pytest.fixture
def case(tmp_path: Any) -> tuple[Case, np.ndarray]:
    reference = np.zeros((11, 12, 9), dtype=np.int16)
    reference[1:5, 2:10, 1:7] = 1
    reference[6:10, 4:8, 2:6] = 2
    affine = np.diag([2.0, 2.0, 2.0, 1.0])
    rng = np.random.default_rng(0)
    nibabel.save(
        nibabel.Nifti1Image(rng.normal(0, 300, reference.shape).astype(np.float32), affine),
        tmp_path / "image.nii.gz",
    )
    nibabel.save(nibabel.Nifti1Image(reference, affine), tmp_path / "label.nii.gz")
    entry = Case(
        id="one",
        dataset="phantom",
        split="val",
        modality="ct",
        sequence="",
        image=tmp_path / "image.nii.gz",
        masks={"": tmp_path / "label.nii.gz"},
        holds="values",
        labels=MappingProxyType({1: ("liver",), 2: ("spleen",)}),
        unnamed=(),
        annotated=CONCEPTS,
        complete=frozenset(CONCEPTS),
        licence="CC0-1.0",
    )
    return entry, reference


def test_scores_are_those_of_the_masks_and_absent_structures_are_kept_apart(
    case: tuple[Case, np.ndarray],
) -> None:
    entry, reference = case
    model = Scripted(reference)
    score = score_scan(
        model, entry, *read_scan(entry, LabelSpace(CONCEPTS, model.tree)), domain="torso"
    )
    dice = {row.concept: row.dice for row in score.structures}
    # the spleen's slab from 4 to 8 loses its first half: Dice 2 * 1 / (1 + 2)
    assert dice == {"liver": 1.0, "spleen": pytest.approx(2 / 3, abs=1e-4)}
    assert score.mean_dice == pytest.approx((1 + 2 / 3) / 2, abs=1e-4)
    [absent] = score.absent
    assert absent.concept == "gallbladder"
    assert absent.predicted_ml == pytest.approx(float((reference == 0).sum()) * 0.008, abs=1e-3)


def test_the_card_holds_every_score_and_the_licence_of_every_source(
    case: tuple[Case, np.ndarray],
) -> None:
    entry, reference = case
    model = Scripted(reference)
    score = score_scan(
        model, entry, *read_scan(entry, LabelSpace(CONCEPTS, model.tree)), domain="torso"
    )
    scores = ModelScores(model="tiny", version="1", sha256="0" * 64, cases=(score,))
    card = render_card(MANIFEST, scores, trained_on=[entry], tree=model.tree)
    assert "| spleen | 0.667 |" in card
    assert "| phantom | 1 | 2 | 0.833 |" in card
    assert "Of 1 prompts" in card
    assert "0 were answered `not_found`" in card
    assert "AUROC of the presence score, present against absent prompts: 1.000" in card
    assert "- phantom: 1 cases, CC0-1.0" in card


def test_auroc_is_the_share_of_pairs_in_order() -> None:
    assert auroc([0.2, 0.8], [0.5]) == 0.5
    assert auroc([0.9, 0.8], [0.1, 0.2, 0.3]) == 1.0


def test_attempts_are_told_with_what_was_expected(tmp_path):
    assert read_attempts(tmp_path) == ()
    (tmp_path / ATTEMPTS_FILE).write_text(
        "- {idea: wider, expected: better, found: worse, kept: false}\n"
        "- {idea: longer, expected: better}\n"
    )
    attempts = read_attempts(tmp_path)
    assert attempts[0] == Attempt(idea="wider", expected="better", found="worse", kept=False)
    *_, closed, still_open = attempts_section(attempts).splitlines()
    assert closed == "| wider | better | worse | no |"
    assert still_open == "| longer | better | not yet known |  |"


@pytest.mark.parametrize("text", ["- {idea: wider}", "idea: wider", "- [", "- {idea: 3}"])
def test_attempts_that_cannot_be_read_say_what_to_write(text, tmp_path):
    (tmp_path / ATTEMPTS_FILE).write_text(text)
    with pytest.raises(ModelError, match="attempts") as error:
        read_attempts(tmp_path)
    assert "expected" in str(error.value.remedy)


def test_what_was_tried_for_nano_can_be_read():
    attempts = read_attempts(models_folder() / "nano")
    assert attempts
    assert all(attempt.idea and attempt.expected for attempt in attempts)
