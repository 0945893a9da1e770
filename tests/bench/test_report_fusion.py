"""The benchmark of reports: which scans join which row, and what they are asked."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from tests.bench import report_fusion
from textseg.training.sensitivity_report import CHANGES, CaseSensitivity


def case(name, group, right, **others):
    dice = {"right": right, **others}
    return CaseSensitivity(id=name, dataset="d", group=group, prompts=1, dice=dice, changed={})


def test_rows_join_groups_and_tell_what_the_right_report_has_over_others():
    told = dict.fromkeys(CHANGES, 0.2)
    cases = [
        case("a", "which", 0.8, **told),
        case("b", "extent", 0.6, **told),
        case("c", "none", 0.4, **told),
    ]
    rows = {(row["group"], row["report"]): row for row in report_fusion.rows_of("gated", cases)}
    assert {row["fusion"] for row in rows.values()} == {"gated"}
    assert [rows[group, "right"]["scans"] for group in report_fusion.GROUPS] == [2, 1, 1, 1]
    assert rows["ambiguous", "right"]["dice"] == "0.700"
    assert rows["ambiguous", "swapped"]["difference"] == "0.500"
    assert float(rows["clear", "dropped"]["difference"]) == pytest.approx(0.2)


def test_where_edema_is_hidden_the_whole_tumor_alone_is_asked_for(monkeypatch):
    asked = []

    def answer(segmenter, cases, *, prompts, **_):
        asked.append(([each.id for each in cases], prompts))
        return SimpleNamespace(cases=tuple(cases))

    monkeypatch.setattr(report_fusion, "text_sensitivity", answer)
    monkeypatch.setattr(report_fusion.Segmenter, "from_pretrained", lambda model: None)
    cases = [case("a", "which", 1), case("b", "extent", 1), case("c", "none", 1)]
    assert {each.id for each in report_fusion.sensitivity("model", cases)} == {"a", "b", "c"}
    assert asked == [(["b"], ["brain_tumor"]), (["a", "c"], None)]
    asked.clear()
    report_fusion.sensitivity("model", cases[:1])
    assert asked == [(["a"], None)]
