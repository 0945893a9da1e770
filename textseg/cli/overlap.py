"""Reads the next scan and writes the last result while a scan is segmented.

At most one scan is read ahead and at most one result is being written, so no more than three scans
are in memory, however many there are.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Generator, Sequence
from concurrent import futures
from itertools import islice
from typing import Generic, TypeVar

from textseg.cli.answering import Failure, Loaded, Outcome, Steps, Task, guarded

T = TypeVar("T")


def overlapped(tasks: Sequence[Task], steps: Steps) -> Generator[tuple[Task, Outcome], None, None]:
    """Each task with its outcome, in order; an error of any step is the outcome of its own task.

    Scans are segmented in the thread of the caller. If that is stopped, what is being read or
    written is finished, and nothing else is begun.
    """
    coming = iter(tasks)
    settling: deque[tuple[Task, _Later[Outcome]]] = deque()
    ahead = deque(_read_later(steps, first) for first in islice(coming, 1))
    try:
        while ahead:
            task, loaded = _take_first(ahead)
            ahead.extend(_read_later(steps, following) for following in islice(coming, 1))
            step = _segmented(steps, task, loaded)
            if callable(step):
                while settling:
                    yield _take_first(settling)
                settling.append((task, _Later(step)))
            else:
                settling.append((task, _Later.known(step)))
            # or this scan would stay in memory while the next one is segmented
            del loaded, step
            while settling and settling[0][1].is_done:
                yield _take_first(settling)
        while settling:
            yield _take_first(settling)
    finally:
        for _, scan in ahead:
            scan.wait()
        for _, outcome in settling:
            outcome.wait()


class _Later(Generic[T]):
    """What a call will return, made in a thread of its own.

    The interpreter waits for that thread before it ends: one in the middle of something that
    outlives it is torn down there, and may take the process with it.
    """

    def __init__(self, call: Callable[[], T]) -> None:
        self._future: futures.Future[T] = futures.Future()
        self._thread = threading.Thread(target=self._run, args=(call,), daemon=False)
        self._thread.start()

    @classmethod
    def known(cls, value: T) -> _Later[T]:
        """A result that is there already."""
        later = cls(lambda: value)
        later.wait()
        return later

    @property
    def is_done(self) -> bool:
        """Whether the result is there."""
        return self._future.done()

    def wait(self) -> None:
        """Until the call is over and all it held is let go."""
        # before Python 3.13 a signal during `join` makes a thread that runs look as if it had ended
        futures.wait([self._future])
        self._thread.join()

    def result(self) -> T:
        """What the call returned, once it has."""
        self.wait()
        return self._future.result()

    def _run(self, call: Callable[[], T]) -> None:
        try:
            self._future.set_result(call())
        except BaseException as error:
            self._future.set_exception(error)


def _take_first(queue: deque[tuple[Task, _Later[T]]]) -> tuple[Task, T]:
    task, later = queue[0]
    result = later.result()
    # only now, so that whoever is stopped while waiting still knows what is being waited for
    queue.popleft()
    return task, result


def _read_later(steps: Steps, task: Task) -> tuple[Task, _Later[Loaded | Outcome]]:
    return task, _Later(lambda: guarded(task, lambda: steps.read(task)))


def _segmented(
    steps: Steps, task: Task, loaded: Loaded | Outcome
) -> Outcome | Callable[[], Outcome]:
    """What came of the task, or how to write it."""
    if not isinstance(loaded, Loaded):
        return loaded
    steps.load()
    segmentation = guarded(task, lambda: steps.segment(task, loaded))
    if isinstance(segmentation, Failure):
        return segmentation
    return lambda: guarded(task, lambda: steps.write(task, segmentation))
