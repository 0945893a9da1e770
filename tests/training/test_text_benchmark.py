"""The benchmark of text encoders: an oracle gets everything right, chance nearly nothing."""

from __future__ import annotations

from collections import defaultdict

import numpy as np
import pytest
from fakes import tiny_encoder, write_model
from rapidfuzz import fuzz

from textseg.cli import main
from textseg.errors import ModelError
from textseg.knowledge import load_tree
from textseg.training.text_benchmark import (
    NEAR_DUPLICATE,
    SpellingMatcher,
    TextBenchmark,
    VectorMatcher,
    matchers_of,
    render_scores,
)


@pytest.fixture(scope="module", name="benchmark_")
def _benchmark():
    found = TextBenchmark(load_tree())
    # a sample is enough to see that the counting is right
    cut = {name: getattr(found.test, name)[:60] for name in ("synonyms", "unseen", "definitions")}
    found.test = type(found.test)(**cut)
    found.far, found.latin = found.far[:40], found.latin[:40]
    found.sided = found.sided[:20]
    return found


class Oracle:
    """Knows the structure, side and number of every text."""

    def __init__(self, benchmark):
        test = benchmark.test
        questions = [*test.synonyms, *test.unseen, *test.definitions, *benchmark.far]
        known = zip(benchmark.known, benchmark.owner.tolist(), strict=True)
        self.meaning = defaultdict(set)  # some known names are shared
        for text, number in (*questions, *benchmark.latin, *known):
            self.meaning[text].add(number)
        self.lesions = defaultdict(set)
        for texts, name, _ in benchmark.lesions:
            for text in texts:
                self.lesions[text].add(name)

    def similarity(self, texts, others):
        return np.array([[self._alike(a, b) for b in others] for a in texts], dtype=np.float32)

    def _alike(self, text, other):
        if other in self.lesions.get(text, ()):
            return 1.0
        if text in self.meaning and other in self.meaning:
            shared = self.meaning[text] & self.meaning[other]
            return bool(shared) / len(self.meaning[other])
        if text.startswith("the "):
            return float(text == f"the {other}, whole")
        if text in self.lesions:
            return 0.0
        words = set(text.replace(",", " ").replace("-sided", "").split())
        return float(set(other.split()) <= words)


def test_an_oracle_is_always_right(benchmark_):
    scores = benchmark_.score(Oracle(benchmark_))
    for part in ("synonyms", "far", "unseen", "definitions", "latin"):
        assert getattr(scores, part).top1 == 1, part
        assert getattr(scores, part).questions > 10, part
    assert scores.side_errors == scores.number_errors == scores.lesion_errors == 0
    assert scores.lesion_margin == 1


def test_one_answer_to_everything_is_always_wrong(benchmark_):
    class Same:
        def similarity(self, texts, others):
            return np.zeros((len(texts), len(others)), dtype=np.float32)

    scores = benchmark_.score(Same())
    assert scores.synonyms.top1 == scores.unseen.top5 == 0
    assert scores.side_errors == scores.number_errors == scores.lesion_errors == 1


def test_letters_find_some_and_random_vectors_fewer(benchmark_):
    letters = benchmark_.score(SpellingMatcher())
    vectors = benchmark_.score(VectorMatcher(tiny_encoder()))
    assert 0.2 < letters.synonyms.top1 < 0.95
    assert letters.far.top1 < letters.synonyms.top1
    assert vectors.definitions.top1 < 0.2
    table = render_scores({"rapidfuzz": letters, "untrained": vectors})
    assert [line.count("|") for line in table.splitlines()] == [11] * 4


def test_far_questions_have_no_near_duplicate():
    whole = TextBenchmark(load_tree())
    assert 0 < len(whole.far) < len(whole.test.synonyms)
    text, _ = whole.far[0]
    nearest = max(fuzz.token_sort_ratio(text.casefold(), k.casefold()) for k in whole.known)
    assert nearest < NEAR_DUPLICATE
    assert {text for text, _ in whole.test.synonyms}.isdisjoint(whole.known)


def test_methods_come_with_their_names_and_what_is_not_there_is_an_error(tmp_path):
    write_model(tmp_path / "words")
    found = dict(matchers_of([str(tmp_path / "words")], []))
    assert list(found) == ["spelling", "untrained", str(tmp_path / "words")]
    alike = found["spelling"].similarity(["left kidney"], ["left kidneys", "spleen"])
    assert alike[0, 0] > alike[0, 1]
    with pytest.raises(ModelError, match="nothing"):
        list(matchers_of([str(tmp_path / "nothing")], []))


@pytest.mark.slow
def test_the_command_prints_a_row_for_each_method(capsys):
    assert main(["text-benchmark"]) == 0
    out = capsys.readouterr().out.splitlines()
    assert [line.split("|")[1].strip() for line in out] == [
        "encoder",
        "---",
        "spelling",
        "untrained",
    ]
