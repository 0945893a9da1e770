"""Writes the accuracy of the resolver on the development set, by category and half.

Run as ``python tests/prompts/report.py``; ``--wrong development`` also lists what that half of the
set gets wrong.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from prompts.judging import HALVES, answer, is_right, read_models, read_rows


def main() -> None:
    parser = argparse.ArgumentParser(description="Accuracy of the resolver by category and half.")
    parser.add_argument("--wrong", choices=HALVES, help="list the wrong answers of this half")
    shown = parser.parse_args().wrong
    rows, models = tuple(read_rows()), read_models()
    for row in rows:  # builds every index before the clock starts
        answer(row, models)
    started = time.perf_counter()
    answers = [(row, answer(row, models)) for row in rows]
    mean_ms = 1000 * (time.perf_counter() - started) / len(rows)
    accepted = sum(row.status != "ok" and bool(given.concepts) for row, given in answers)
    say(*table(answers), "", f"{accepted} false accepts, {mean_ms:.2f} ms per prompt")
    say(*(describe(r, g) for r, g in answers if r.half == shown and not is_right(r, g)))


def table(answers):
    """Lines of a Markdown table: right answers of each category, of how many, and their share."""
    total, right = Counter(), Counter()
    for row, given in answers:
        for category in (row.category, "all"):
            total[category, row.half] += 1
            right[category, row.half] += is_right(row, given)
    yield f"| category | {' | '.join(HALVES)} |"
    yield f"|{'---|' * (len(HALVES) + 1)}"
    for category in dict.fromkeys((*(row.category for row, _ in answers), "all")):
        counts = [(right[category, half], total[category, half]) for half in HALVES]
        cells = [f"{count} of {of}, {100 * count / max(of, 1):.1f} %" for count, of in counts]
        yield f"| {' | '.join([category, *cells])} |"


def describe(row, given):
    wanted = " ".join(sorted(row.concepts)) or row.status
    got = " ".join(sorted(given.concepts)) or given.status
    flag = "accepted" if given.concepts and row.status != "ok" else "wrong"
    return f"{flag} [{row.category}] {row.prompt!r}: wanted {wanted}, got {got} ({given.method})"


def say(*texts):
    sys.stdout.writelines(f"{text}\n" for text in texts)


if __name__ == "__main__":
    main()
