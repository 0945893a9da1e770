"""Checks a list of cases, in several processes if wanted, and compares them with each other."""

from __future__ import annotations

import signal
from collections import defaultdict
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import closing
from functools import partial
from multiprocessing import get_context

from textseg.datasets.cases import Case
from textseg.datasets.checks.one_case import CheckedCase, check_case
from textseg.datasets.checks.report import CheckReport, Finding, listed
from textseg.errors import ResourceError
from textseg.knowledge import KnowledgeTree

_LARGEST_CHUNK = 8


def check_cases(
    cases: Sequence[Case],
    *,
    tree: KnowledgeTree,
    workers: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> CheckReport:
    """Everything that is wrong with some cases, each read once.

    Args:
        cases: Cases of one or more data sets.
        tree: Says which structures are pairs, and which contain each other.
        workers: Processes that check cases at the same time; 0 for none besides this one.
        progress: Is told how many cases are done, and how many there are.

    Raises:
        ResourceError: E501, a worker was ended from outside.
    """
    checked = []
    with closing(_check_each(cases, tree, workers)) as results:
        for result in results:
            checked.append(result)
            if progress is not None:
                progress(len(checked), len(cases))
    findings = [finding for one in checked for finding in one.findings]
    findings += _same_scans(cases, checked)
    findings += _never_shown(cases, checked)
    findings += _nothing_labelled(cases)
    return CheckReport(len(cases), tuple(findings))


def _check_each(
    cases: Sequence[Case], tree: KnowledgeTree, workers: int
) -> Generator[CheckedCase, None, None]:
    """The cases after their checks, in their order."""
    check = partial(check_case, tree=tree)
    num_workers = min(workers, len(cases))
    if num_workers == 0:
        yield from map(check, cases)
        return
    # the tree travels with each chunk; few cases are still spread over all workers
    chunk = max(1, min(_LARGEST_CHUNK, len(cases) // (4 * num_workers)))
    try:
        with ProcessPoolExecutor(
            num_workers,
            # a fork would copy locks that a thread of this process may hold
            mp_context=get_context("spawn"),
            # Ctrl-C reaches every process; this one alone answers it
            initializer=signal.signal,
            initargs=(signal.SIGINT, signal.SIG_IGN),
        ) as pool:
            yield from pool.map(check, cases, chunksize=chunk)
    except BrokenProcessPool as error:
        raise ResourceError(
            "a worker was ended from outside, as happens when memory runs out.",
            code="E501",
            remedy="Use fewer --workers.",
        ) from error


def _same_scans(cases: Sequence[Case], checked: Sequence[CheckedCase]) -> Iterator[Finding]:
    """Scans that several cases have, by the content of their files."""
    groups: dict[tuple[str, int | None], list[Case]] = defaultdict(list)
    for case, result in zip(cases, checked, strict=True):
        if result.scan_sha256 is not None:
            groups[result.scan_sha256, case.volume_index].append(case)
    for first, *others in groups.values():
        if others:
            message = (
                f"is the scan of {listed(case.id for case in others)}, too. Keep one of them, or "
                "keep them in the same split."
            )
            yield Finding("warning", "same-scan", first.id, first.scan_files[0], message)


def _never_shown(cases: Sequence[Case], checked: Sequence[CheckedCase]) -> Iterator[Finding]:
    """Complete concepts that no mask of their data set shows."""
    complete: dict[str, set[str]] = defaultdict(set)
    shown: dict[str, set[str]] = defaultdict(set)
    for case, result in zip(cases, checked, strict=True):
        if result.shown is not None:
            complete[case.dataset] |= case.complete
            shown[case.dataset] |= result.shown
    for dataset, concepts in complete.items():
        if missing := sorted(concepts - shown[dataset]):
            message = (
                f"No mask of {dataset} shows {listed(missing)}, said to be labelled wherever they "
                "occur. If the scans reach that far, correct `labels` or `complete`."
            )
            yield Finding("warning", "never-shown", None, None, message)


def _nothing_labelled(cases: Sequence[Case]) -> Iterator[Finding]:
    """Data sets of which no label has a meaning, as in a draft that nobody completed."""
    labelled: dict[str, bool] = defaultdict(bool)
    for case in cases:
        labelled[case.dataset] |= bool(case.labels)
    for dataset, has_labels in labelled.items():
        if not has_labels:
            message = (
                f"No label of {dataset} has a concept, so there is nothing to train on. Complete "
                "`labels` in its description."
            )
            yield Finding("error", "no-labels", None, None, message)
