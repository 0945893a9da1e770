"""How much masks depend on the report, with models that answer by what the report says."""

from __future__ import annotations

import csv
from pathlib import Path
from types import SimpleNamespace

import nibabel as nib
import numpy as np
import pytest
from fakes import bare_case

from textseg.errors import ModelError
from textseg.knowledge import load_tree
from textseg.network.weights import Domain, ModelManifest
from textseg.prompts import resolve
from textseg.training.card import render_card
from textseg.training.report_gate import ReportGate
from textseg.training.scores import ModelScores
from textseg.training.sensitivity import reported_cases, text_sensitivity
from textseg.training.sensitivity_report import CHANGES, read_sensitivity

SHAPE = (10, 7, 5)
LEFT, RIGHT = np.zeros((2, *SHAPE), dtype=bool)
LEFT[1:4, 2:4, 1:3] = True
RIGHT[6:9, 2:4, 1:3] = True
ELSEWHERE = np.roll(LEFT, 3, axis=1)
SAYS_LEFT = "There is a mass in the left frontal lobe. The ventricles are normal."
SAYS_RIGHT = "There is a mass in the right frontal lobe. The ventricles are normal."
BOTH_WAYS = "The ventricles are normal. There is a mass in the left frontal lobe."


class Reader:
    """Draws the side that the report names, nothing if it denies a mass, and both without it."""

    tree = load_tree()

    def __init__(self, *concepts: str, network: dict[str, object] | None = None) -> None:
        domain = Domain(
            name="brain",
            spacing_mm=(2.0, 2.0, 2.0),
            window=(16, 16, 16),
            modalities=("mr",),
            concepts=concepts or ("brain_tumor",),
        )
        self.manifest = ModelManifest(
            name="reader",
            version="1",
            licence="CC0-1.0",
            sha256="0" * 64,
            network={"report": {}} if network is None else network,
            text_encoder={},
            domains=(domain,),
        )
        self.asked: list[object] = []

    def resolve(self, prompt):
        return resolve(prompt, self.tree, supported=self.manifest.supported)

    def __call__(self, scan, prompts, *, report, modality):
        self.asked.append(report)
        assert (scan.geometry.shape, modality) == (SHAPE, "mr")
        text = report.read_text() if isinstance(report, Path) else report
        return {prompt: SimpleNamespace(mask=self.mask(text)) for prompt in prompts}

    def mask(self, text):
        if text is None:
            return LEFT | RIGHT
        if "no mass" in text:
            return np.zeros(SHAPE, dtype=bool)
        return LEFT if "left" in text else RIGHT


class Deaf(Reader):
    """Draws the left side, whatever the report says."""

    def mask(self, text):
        return LEFT


@pytest.fixture
def case(tmp_path):
    """Makes cases with a reference of their own."""

    def make(name, reference, report, *, origin=0.0, **about):
        affine = np.diag([2.0, 1.5, 3.1, 1.0])
        affine[:3, 3] = origin
        noise = np.random.default_rng(0).normal(size=SHAPE)
        files = {kind: tmp_path / f"{name}_{kind}.nii" for kind in ("image", "label")}
        for file, voxels in zip(files.values(), (noise, reference), strict=True):
            nib.save(nib.Nifti1Image(voxels.astype(np.float32), affine), file)
        settings = {
            "id": name,
            "dataset": "made",
            "split": "val",
            "image": files["image"],
            "masks": {"": files["label"]},
            "labels": {1: ("brain_tumor",), 2: ("brain_edema",)},
            "annotated": ("brain_tumor", "brain_edema"),
            "complete": frozenset({"brain_tumor", "brain_edema"}),
            "report": report,
        }
        return bare_case(**{**settings, **about})

    return make


@pytest.fixture
def two(case):
    """A lesion that the reader draws exactly, and one of which it draws half."""
    swapped = {"swapped_report": SAYS_RIGHT}
    return [
        case("whole", LEFT, SAYS_LEFT, **swapped, group="which"),
        case("half", LEFT | ELSEWHERE, SAYS_LEFT, **swapped, group="none"),
    ]


def measure(model, cases, *, seed=0, **options):
    return text_sensitivity(model, cases, generator=np.random.default_rng(seed), **options)


def test_every_change_costs_what_the_masks_say_it_does(two):
    found = measure(Reader(), two)
    whole, half = found.cases
    # twelve voxels a side: of the whole lesion both sides are 2 * 12 / (12 + 24)
    expected = {"right": 1, "swapped": 0, "dropped": 2 / 3, "shuffled": 1, "negated": 0}
    assert whole.dice == pytest.approx(expected, abs=1e-4)
    expected = {"right": 2 / 3, "swapped": 0, "dropped": 1 / 2, "shuffled": 2 / 3, "negated": 0}
    assert half.dice == pytest.approx(expected, abs=1e-4)
    # the masks change alike, whatever the reference is
    shares = {"swapped": 1, "dropped": 1 / 3, "shuffled": 0, "negated": 1}
    assert whole.changed == half.changed == pytest.approx(shares, abs=1e-4)

    everything = found.groups[0]
    assert (everything.name, everything.scans) == ("all", 2)
    assert everything.dice.mean == pytest.approx(5 / 6, abs=1e-4)
    differences = {effect.change: effect.difference.mean for effect in everything.effects}
    means = {"swapped": 5 / 6, "dropped": 1 / 4, "shuffled": 0, "negated": 5 / 6}
    assert differences == pytest.approx(means, abs=1e-4)
    assert found.swapped.changed.mean == 1
    assert not found.is_ignored


def test_groups_of_the_case_list_are_told_apart(two):
    found = measure(Reader(), two)
    assert [(group.name, group.scans) for group in found.groups] == [
        ("all", 2),
        ("which", 1),
        ("none", 1),
    ]
    differences = [group.effect("dropped").difference.mean for group in found.groups[1:]]
    assert differences == pytest.approx([1 / 3, 1 / 6], abs=1e-4)
    assert [group.name for group in measure(Reader(), two[:1]).groups] == ["all"]


def test_a_model_that_ignores_the_report_answers_all_alike(two):
    found = measure(Deaf(), two)
    effects = {(e.difference.mean, e.changed.mean) for e in found.groups[0].effects}
    assert effects == {(0.0, 0.0)}
    assert found.is_ignored
    assert found.complaint.startswith("THE REPORT IS IGNORED: ")


def test_masks_that_change_without_a_loss_of_dice_are_not_ignorance(case):
    # the reference lies elsewhere, so neither side scores
    one = case("neither", ELSEWHERE, SAYS_LEFT, swapped_report=SAYS_RIGHT)
    found = measure(Reader(), [one])
    assert found.swapped.difference.mean == 0
    assert found.swapped.changed.mean == 1
    assert not found.is_ignored


def test_structures_that_the_reference_lacks_are_not_asked_for(case):
    reference = LEFT.astype(int)
    one = case("tumor", reference, SAYS_LEFT, swapped_report=SAYS_RIGHT)
    both = case("both", reference + 2 * RIGHT, SAYS_LEFT, swapped_report=SAYS_RIGHT)
    found = measure(Reader("brain_tumor", "brain_edema"), [one, both])
    assert [entry.prompts for entry in found.cases] == [1, 2]
    # of two structures on either side the reader draws both on the left, which is right for one
    assert found.cases[1].dice["right"] == pytest.approx(1 / 2)
    again = measure(Reader("brain_tumor", "brain_edema"), [both], prompts=["brain_edema"])
    assert again.cases[0].dice["right"] == 0


def test_the_report_of_the_farthest_case_stands_in_for_a_swapped_one(case):
    near = "A mass in the left lobe, near. Nothing else."
    far = "A mass in the right lobe, far. Nothing else."
    middle = "A mass in the right lobe, middle. Nothing else."
    cases = [
        # where the scanner's origin lies says nothing of the place in the head
        case("a", LEFT, near, origin=400.0),
        case("b", np.roll(RIGHT, -2, axis=0), middle),
        case("c", RIGHT, far, origin=400.0),
    ]
    model = Reader()
    measure(model, cases)
    # five questions to each case: right, swapped, dropped, shuffled, negated
    assert [model.asked[5 * k + 1] for k in range(3)] == [far, near, near]


def test_a_case_alone_has_nothing_to_be_swapped_with(case):
    one = case("alone", LEFT, SAYS_LEFT)
    same = case("same", RIGHT, SAYS_LEFT)
    found = measure(Reader(), [one, same])
    assert found.swapped.difference.mean is None
    assert set(found.cases[0].dice) == {"right", "dropped", "shuffled", "negated"}
    assert not found.is_ignored


def test_a_report_that_states_no_finding_is_not_asked_with_denials(case):
    nothing = case("nothing", LEFT, "No edema on the left. The ventricles are normal.")
    assert "negated" not in measure(Reader(), [nothing]).cases[0].dice


def test_two_sentences_are_always_shuffled_and_one_never(case):
    model = Reader()
    cases = [case(f"two{k}", LEFT, SAYS_LEFT, swapped_report=SAYS_RIGHT) for k in range(4)]
    measure(model, cases)
    assert model.asked.count(BOTH_WAYS) == 4
    single = case("one", LEFT, "A mass in the left lobe.", swapped_report=SAYS_RIGHT)
    assert "shuffled" not in measure(Reader(), [single]).cases[0].dice


def test_features_are_swapped_and_dropped_but_their_words_are_unknown(case, tmp_path):
    features = [tmp_path / f"{side}.npy" for side in ("left", "right")]
    for file in features:
        file.write_text(f"{file.stem} lobe")
    cases = [
        case("a", LEFT, features[0]),
        case("b", RIGHT, features[1]),
        case("c", np.roll(RIGHT, 1, axis=0), SAYS_RIGHT),
    ]
    found = measure(Reader(), cases)
    assert found.cases[0].dice == pytest.approx(
        {"right": 1, "swapped": 0, "dropped": 2 / 3}, abs=1e-4
    )
    # a report in words has no features to be swapped with
    assert "swapped" not in found.cases[2].dice
    assert found.groups[0].effect("negated").dice.count == 1


def test_intervals_are_those_of_resampled_scans_and_follow_from_the_seed(case):
    cases = [
        case(f"s{k}", LEFT if k % 2 else LEFT | ELSEWHERE, SAYS_LEFT, swapped_report=SAYS_RIGHT)
        for k in range(6)
    ]
    first, again = (measure(Reader(), cases, seed=3) for _ in range(2))
    assert first == again
    difference = first.swapped.difference
    assert 2 / 3 - 1e-4 <= difference.low < difference.mean < difference.high <= 1
    assert (first.swapped.changed.low, first.swapped.changed.high) == (1, 1)
    assert measure(Reader(), cases, samples=0).swapped.difference.low is None
    # so few scans say little of another
    assert measure(Reader(), cases[:4]).swapped.difference.low is None


def test_a_limit_takes_as_many_of_each_group(case):
    groups = ["none", "none", "none", "which", "extent", "which"]
    cases = [case(f"c{k}", LEFT, SAYS_LEFT, group=group) for k, group in enumerate(groups)]
    without = [
        case("silent", LEFT, None),
        case("unlabelled", LEFT, SAYS_LEFT, masks={}),
        case("unseen", LEFT, SAYS_LEFT, image=None),
    ]
    listed = without + cases
    assert reported_cases(listed) == cases
    assert [c.id for c in reported_cases(listed, limit=3)] == ["c0", "c3", "c4"]
    assert [c.id for c in reported_cases(listed, limit=4)] == ["c0", "c1", "c3", "c4"]


def test_what_cannot_be_measured_is_an_error(case, two):
    with pytest.raises(ModelError, match="reader does not read reports"):
        measure(Reader(network={}), two)
    silent = case("silent", LEFT, None)
    with pytest.raises(ModelError, match=r"E404.*none of 1 cases has a report"):
        measure(Reader(), [silent])
    other = case("other", 2 * LEFT, SAYS_LEFT)
    with pytest.raises(ModelError, match=r"E404.*a structure that reader segments"):
        measure(Reader(), [other])


def test_progress_is_told_case_by_case(two):
    steps = []
    measure(Reader(), two, progress=lambda done, total: steps.append((done, total)))
    assert steps == [(1, 2), (2, 2)]


def test_the_csv_has_a_line_for_each_question(two, tmp_path):
    measure(Reader(), two).write_csv(tmp_path / "rows.csv")
    rows = list(csv.DictReader((tmp_path / "rows.csv").read_text().splitlines()))
    assert [row["report"] for row in rows[:5]] == ["right", *CHANGES]
    dropped = rows[2]
    assert (dropped["case"], dropped["group"]) == ("whole", "which")
    assert float(dropped["dice"]) == pytest.approx(2 / 3, abs=1e-4)
    assert float(dropped["changed"]) == pytest.approx(1 / 3, abs=1e-4)


def test_a_model_keeps_what_was_measured_of_its_own_weights(two, tmp_path):
    found = measure(Reader(), two)
    found.write(tmp_path)
    assert read_sensitivity(tmp_path, sha256=found.sha256) == found
    assert read_sensitivity(tmp_path, sha256="1" * 64) is None
    assert read_sensitivity(tmp_path / "none", sha256=found.sha256) is None
    (tmp_path / "sensitivity.json").write_text("{}")
    with pytest.raises(ModelError, match=r"sensitivity\.json"):
        read_sensitivity(tmp_path, sha256=found.sha256)


@pytest.mark.parametrize("kind", [Reader, Deaf])
def test_the_card_says_what_the_report_does(two, kind):
    model = kind()
    found = measure(model, two)
    scores = ModelScores(model="reader", version="1", sha256="0" * 64, cases=())
    about = {"trained_on": two, "tree": model.tree}
    with pytest.MonkeyPatch.context() as patch:
        # there are no scores beside it here
        patch.setattr("textseg.training.card._summary_section", lambda _: "")
        card = render_card(model.manifest, scores, **about, sensitivity=found)
        assert "What the report does" not in render_card(model.manifest, scores, **about)
    assert "| report | all (2) | which (1) | none (1) |" in card
    rows = [line for line in card.splitlines() if line.startswith("| swapped ")]
    lost = {Reader: ["0.833", "1.000", "0.667"], Deaf: ["0.000"] * 3}[kind]
    assert rows[1] == f"| swapped | {' | '.join(lost)} |"
    assert ("**The report is ignored**" in card) == (kind is Deaf)


@pytest.fixture
def gate():
    """Asks a model, and tells what was said and where the model had been written."""

    def ask(model, cases, **options):
        told, written = [], []

        def write(folder):
            folder.mkdir()
            written.append(folder)

        made = ReportGate(lambda _: model, lambda *said: told.append(said), **options)
        return made.measure(write, cases, name="reader"), told, written

    return ask


def test_the_gate_warns_of_a_model_that_ignores_reports_and_of_no_other(gate, two):
    found, told, written = gate(Reader(), two)
    assert (found.is_ignored, told) == (False, [])
    assert [folder.name for folder in written] == ["reader"]
    assert not written[0].exists()
    found, told, _ = gate(Deaf(), two)
    [(line, kind)] = told
    assert kind == "report-ignored"
    assert line.startswith("THE REPORT IS IGNORED: ")
    assert "Dice differs by 0.000 and 0.0% of a mask changes, over 2 scans" in line
    assert found.is_ignored


def test_a_strict_gate_refuses_what_it_would_warn_of(gate, two, case):
    assert gate(Reader(), two, is_strict=True)[1] == []
    with pytest.raises(ModelError, match="THE REPORT IS IGNORED"):
        gate(Deaf(), two, is_strict=True)
    with pytest.raises(ModelError, match="no validation case has another report"):
        gate(Reader(), [case("alone", LEFT, SAYS_LEFT)], is_strict=True)
    with pytest.raises(ModelError, match="was not measured: none of 0 cases"):
        gate(Reader(), [], is_strict=True)


def test_the_gate_says_that_nothing_was_measured(gate, two):
    found, told, written = gate(Deaf(), two, limit=0)
    assert (found, written) == (None, [])
    assert told[0][1] == "report-not-measured"
    assert "was not measured, as asked" in told[0][0]
    found, told, _ = gate(Deaf(), [])
    assert found is None
    assert "none of 0 cases has a report" in told[0][0]
