from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from textseg.training.aggregation import auroc, compare_groups, mean_with_interval, summarise
from textseg.training.evaluation import EvaluationRow


def rng(seed=0):
    return np.random.default_rng(seed)


def row(case, concept, dice, *, ref_ml=1.0, pred_ml=1.0, hd95_mm=2.0, **rest):
    """A row whose NSD is half its Dice."""
    return EvaluationRow(
        case=case,
        structure=concept.replace("_", " "),
        status="ok",
        dice=dice,
        nsd=dice / 2,
        hd95_mm=hd95_mm,
        volume_pred_ml=pred_ml,
        volume_ref_ml=ref_ml,
        concept=concept,
        **{"region": "abdomen", "modality": "ct", **rest},
    )


def ends(interval):
    return interval.low, interval.high


def by_name(entries):
    return {entry.name: entry for entry in entries}


def test_unknown_values_are_left_out_of_the_mean_and_counted():
    values = [("a", 0.5), ("b", None), ("c", math.nan), ("d", math.inf), ("e", 1.0)]
    answer = mean_with_interval(values, generator=rng())
    assert (answer.mean, answer.count, answer.left_out) == (0.75, 2, 3)


def test_nothing_to_average_has_neither_mean_nor_interval():
    answer = mean_with_interval([("a", None)], generator=rng())
    assert (answer.mean, *ends(answer), answer.count, answer.left_out) == (None, None, None, 0, 1)


def test_equal_values_leave_an_interval_of_no_width():
    answer = mean_with_interval([(f"{n}", 0.7) for n in range(9)], generator=rng())
    assert (answer.mean, *ends(answer)) == pytest.approx((0.7, 0.7, 0.7))


def test_two_scans_span_their_interval():
    # means of 0, 1/2 and 1 come up in 1/4, 1/2 and 1/4 of the draws
    values = [("a", 0.0), ("b", 1.0)]
    assert ends(mean_with_interval(values, generator=rng())) == (0.0, 1.0)
    assert ends(mean_with_interval(values, generator=rng(), level=0.3)) == (0.5, 0.5)


def test_one_scan_has_no_interval_however_many_values_it_has():
    answer = mean_with_interval([("a", 0.0), ("a", 1.0)], generator=rng())
    assert (answer.mean, *ends(answer)) == (0.5, None, None)


def test_scans_are_drawn_and_not_their_values():
    # drawn one by one, 200 values would keep the mean within 0.43 and 0.57
    values = [(case, value) for case, value in (("a", 0.0), ("b", 1.0)) for _ in range(100)]
    assert ends(mean_with_interval(values, generator=rng())) == (0.0, 1.0)


def test_without_samples_there_is_no_interval():
    answer = mean_with_interval([("a", 0.0), ("b", 1.0)], generator=rng(), samples=0)
    assert (answer.mean, *ends(answer)) == (0.5, None, None)


def test_an_interval_follows_from_the_seed():
    values = [(f"{n}", n**2 / 100) for n in range(10)]
    first, again, other = (mean_with_interval(values, generator=rng(s)) for s in (3, 3, 4))
    assert first == again
    assert first != other


def test_intervals_hold_the_truth_as_often_as_they_say():
    source, num_trials, num_scans = rng(11), 600, 40
    held = 0
    for _ in range(num_trials):
        values = [(f"{n}", value) for n, value in enumerate(source.normal(0.3, 1, num_scans))]
        low, high = ends(mean_with_interval(values, generator=source, samples=400))
        held += low <= 0.3 <= high
    # a percentile bootstrap of 40 normal values is 1.96 standard errors with the variance over n,
    # so it holds the mean in P(|t39| < 1.935) = 94 % of trials; four standard deviations of 600
    # trials are 4 %, and an interval of 90 % would hold it in 88.6 %
    assert held / num_trials == pytest.approx(0.94, abs=0.04)


@pytest.fixture
def datasets():
    """Three data sets: the liver is in all, once on MR; the others are only in the first."""
    first = {"dataset": "A"}
    return [
        row("a1", "liver", 0.8, **first),
        row("a1", "spleen", 0.5, **first),
        row("a1", "femur", 0.3, region="lower_limb", **first),
        row("a1", "liver_tumor", 0.2, region="lesion", **first),
        row("a2", "liver", 0.6, **first),
        row("b1", "liver", 0.9, dataset="B"),
        row("c1", "liver", 0.4, dataset="C", modality="mr"),
    ]


def test_means_go_over_scans_then_data_sets_then_classes(datasets):
    summary = summarise(datasets, generator=rng(), samples=0)
    classes = {(c.concept, c.modality): c.dice.mean for c in summary.concepts}
    assert classes == pytest.approx(
        {
            ("liver", "ct"): ((0.8 + 0.6) / 2 + 0.9) / 2,
            ("spleen", "ct"): 0.5,
            ("femur", "ct"): 0.3,
            ("liver_tumor", "ct"): 0.2,
            ("liver", "mr"): 0.4,
        }
    )
    regions = {entry.name: entry.dice.mean for entry in summary.regions}
    assert regions == pytest.approx(
        {"abdomen": (0.8 + 0.5 + 0.4) / 3, "lower_limb": 0.3, "lesion": 0.2}
    )
    means = {entry.name: entry.dice.mean for entry in summary.datasets}
    assert means == pytest.approx({"A": (0.7 + 0.5 + 0.3 + 0.2) / 4, "B": 0.9, "C": 0.4})
    assert summary.overall.dice.mean == pytest.approx((0.8 + 0.5 + 0.3 + 0.2 + 0.4) / 5)
    assert summary.overall.nsd.mean == pytest.approx((0.8 + 0.5 + 0.3 + 0.2 + 0.4) / 10)


def test_entries_say_how_much_they_rest_on(datasets):
    summary = summarise(datasets, generator=rng(), samples=0)
    abdomen = by_name(summary.regions)["abdomen"]
    assert (abdomen.classes, abdomen.scans, abdomen.dice.count) == (3, 4, 5)
    liver = summary.concepts[0]
    assert (liver.name, liver.region, liver.classes, liver.scans) == ("liver", "abdomen", 1, 3)
    assert (summary.overall.classes, summary.overall.scans) == (5, 4)


def test_the_same_case_name_in_two_data_sets_is_two_scans():
    rows = [row("1", "liver", 0.2, dataset="A"), row("1", "liver", 0.6, dataset="B")]
    (liver,) = summarise(rows, generator=rng()).concepts
    assert (liver.scans, liver.dice.mean) == (2, 0.4)


def test_scans_are_drawn_within_their_data_set():
    rows = [row("a", "liver", 0.9, dataset="A")]
    rows += [row(f"b{n}", "liver", 0.1, dataset="B") for n in range(10)]
    # drawn from all scans, A would be missing in a third of the samples and the mean 0.1 there
    assert ends(summarise(rows, generator=rng()).overall.dice) == pytest.approx((0.5, 0.5))


def test_no_interval_where_each_data_set_has_one_scan():
    rows = [row("a", "liver", 0.9, dataset="A"), row("b", "liver", 0.1, dataset="B")]
    assert ends(summarise(rows, generator=rng()).overall.dice) == (None, None)


def test_structures_of_a_scan_are_drawn_together():
    # in each scan one structure makes up for the other, so their mean is always the same
    rows = [row(f"{n}", "liver", n / 10) for n in range(9)]
    rows += [row(f"{n}", "spleen", 1 - n / 10) for n in range(9)]
    summary = summarise(rows, generator=rng())
    assert ends(summary.overall.dice) == pytest.approx((0.5, 0.5))
    liver, spleen = (entry.dice for entry in summary.concepts)
    assert liver.low < 0.3 < 0.5 < liver.high
    assert liver.low == pytest.approx(1 - spleen.high)


def test_a_class_that_a_sample_lacks_leaves_its_region_to_the_others():
    rows = [row(f"{n}", "liver", 0.5) for n in range(6)] + [row("0", "spleen", 0.9)]
    summary = summarise(rows, generator=rng())
    assert summary.overall.dice.mean == pytest.approx(0.7)
    # without the one scan that has a spleen, only the liver is left
    assert ends(summary.overall.dice) == pytest.approx((0.5, 0.7))
    assert ends(by_name(summary.concepts)["spleen"].dice) == (None, None)


def test_absent_structures_are_counted_beside_the_means():
    absent = {"ref_ml": 0.0}
    rows = [
        row("a", "liver", 0.6),
        row("b", "liver", 1.0, pred_ml=0.0, hd95_mm=0.0, **absent),
        row("c", "liver", 0.0, hd95_mm=math.inf, **absent),
        row("c", "spleen", 1.0, pred_ml=0.0, hd95_mm=0.0, **absent),
    ]
    summary = summarise(rows, generator=rng())
    liver, spleen = summary.concepts
    assert (liver.dice.mean, liver.dice.count, liver.scans) == (0.6, 1, 1)
    assert (liver.absent, liver.absent_correct) == (2, 1)
    assert (spleen.dice.mean, spleen.classes, spleen.absent_correct) == (None, 0, 1)
    assert (summary.overall.classes, summary.overall.absent) == (1, 3)


def test_a_missed_structure_counts_in_dice_and_is_left_out_of_the_distance():
    rows = [row("a", "liver", 0.8), row("b", "liver", 0.0, pred_ml=0.0, hd95_mm=math.inf)]
    liver = summarise(rows, generator=rng()).overall
    assert (liver.dice.mean, liver.dice.left_out) == (0.4, 0)
    assert (liver.hd95_mm.mean, liver.hd95_mm.count, liver.hd95_mm.left_out) == (2.0, 1, 1)


def test_presence_scores_tell_present_from_absent_structures():
    rows = [
        row("a", "liver", 0.8, presence=0.9),
        row("b", "liver", 0.8, presence=0.6),
        row("c", "liver", 0.8),
        row("d", "liver", 0.0, ref_ml=0.0, presence=0.1),
        row("e", "liver", 0.0, ref_ml=0.0, presence=0.6),
        row("a", "spleen", 0.8, presence=0.3),
    ]
    summary = summarise(rows, generator=rng(), samples=0)
    liver, spleen = summary.concepts
    # of four pairs three are in order and one is a tie
    assert liver.presence_auroc == 0.875
    assert spleen.presence_auroc is None
    assert summary.overall.presence_auroc == (3.5 + 1) / 6


@given(
    st.lists(st.integers(0, 5), min_size=1, max_size=9),
    st.lists(st.integers(0, 5), min_size=1, max_size=9),
)
def test_auroc_is_the_share_of_pairs_in_order(positive, negative):
    pairs = [(p > n) + (p == n) / 2 for p in positive for n in negative]
    assert auroc(positive, negative) == pytest.approx(sum(pairs) / len(pairs))


SCANNERS = {"x": (0.9,) * 5, "y": (0.7,) * 5, "z": (0.5,) * 2}


def compared(scanners, **rest):
    """Scans named x0, x1, ... with a liver each, compared by the letter."""
    rows = [
        row(f"{scanner}{n}", "liver", dice)
        for scanner, figures in scanners.items()
        for n, dice in enumerate(figures)
    ]
    values = {one.case: one.case[0] for one in rows}
    groups = compare_groups(rows, "scanner", values=values, generator=rng(), **rest)
    return {group.value: group for group in groups}


def test_groups_are_compared_with_all_other_scans():
    groups = compared(SCANNERS)
    assert [group.scans for group in groups.values()] == [5, 5, 2]
    assert [group.dice.mean for group in groups.values()] == pytest.approx([0.9, 0.7, 0.5])
    assert [group.nsd.mean for group in groups.values()] == pytest.approx([0.45, 0.35, 0.25])
    differences = [group.dice_difference.mean for group in groups.values()]
    rest_of_x, rest_of_y, rest_of_z = (3.5 + 1) / 7, (4.5 + 1) / 7, (4.5 + 3.5) / 10
    assert differences == pytest.approx([0.9 - rest_of_x, 0.7 - rest_of_y, 0.5 - rest_of_z])


def test_a_difference_is_drawn_from_both_sides():
    difference = compared({"x": (0.9,) * 6, "y": (0.4, 0.6) * 4})["x"].dice_difference
    # the mean of eight draws of 0.4 and 0.6 lies outside 0.425 and 0.575 in 0.8 % of the samples
    # and outside 0.45 and 0.55 in 7 %, and 5 % are cut off
    assert (difference.mean, *ends(difference)) == pytest.approx((0.4, 0.325, 0.475))


def test_small_groups_have_a_mark_and_no_interval():
    groups = compared(SCANNERS)
    assert [group.is_small for group in groups.values()] == [False, False, True]
    assert ends(groups["x"].dice) == pytest.approx((0.9, 0.9))
    small = groups["z"]
    assert [ends(e) for e in (small.dice, small.nsd, small.dice_difference)] == [(None, None)] * 3


def test_a_large_group_beside_few_others_has_no_interval_of_the_difference():
    large = compared({"x": (0.9,) * 6, "y": (0.7,) * 2})["x"]
    assert ends(large.dice) == pytest.approx((0.9, 0.9))
    assert (large.dice_difference.mean, *ends(large.dice_difference)) == (
        pytest.approx(0.2),
        None,
        None,
    )


def test_a_group_of_all_scans_has_nothing_to_differ_from():
    assert compared({"x": (0.9,) * 6})["x"].dice_difference.mean is None


def test_each_scan_counts_once_in_its_group_whatever_it_holds():
    rows = [row("a", name, 0.9) for name in ("liver", "spleen", "stomach")]
    rows += [row("b", "liver", 0.1), row("c", "liver", 1.0, ref_ml=0.0, pred_ml=0.0)]
    values = dict.fromkeys("abc", "same")
    (group,) = compare_groups(rows, "scanner", values=values, generator=rng())
    assert group.dice.mean == pytest.approx(0.5)
    assert (group.scans, group.dice.count, group.dice.left_out) == (3, 2, 1)
