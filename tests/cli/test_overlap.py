"""Reading ahead and writing behind: what runs at the same time, what fails, what stays bounded."""

from __future__ import annotations

import signal
import subprocess
import sys
import textwrap
import threading
import time
import weakref
from pathlib import Path

import pytest

from textseg.cli import overlap
from textseg.cli.answering import Answer, Delivery, Failure, Loaded, Task
from textseg.cli.jobs import Job, Question
from textseg.cli.overlap import overlapped
from textseg.cli.terminal import stopping_on_signals
from textseg.errors import Cancelled, InputError, ModelError

PATIENCE_S = 10.0


def tasks_of(number: int) -> list[Task]:
    question, delivery = Question(("liver",)), Delivery(("nifti",))
    names = [f"s{i}" for i in range(number)]
    return [Task(Job(Path(n), n, Path("out") / n, question), delivery, "0") for n in names]


def place(task: Task) -> int:
    return int(task.job.name[1:])


class Scan:
    """Stands for voxels; can be watched."""


class Steps:
    """Steps that keep a diary; tests override what they want to see fail or wait."""

    def __init__(self) -> None:
        self.diary: list[tuple[str, int]] = []

    def load(self) -> None:
        pass

    def read(self, task):
        self.diary.append(("read", place(task)))
        return Loaded(Scan(), 0.0)

    def segment(self, task, loaded):
        self.diary.append(("segment", place(task)))
        return loaded.volume

    def write(self, task, segmentation):
        self.diary.append(("write", place(task)))
        return Answer(task.job.name, {})


def outcomes(number: int, steps) -> dict[str, str]:
    """What came of each task: the name of its answer, or the line of its failure."""
    found = {}
    for task, outcome in overlapped(tasks_of(number), steps):
        found[task.job.name] = outcome.line if isinstance(outcome, Failure) else outcome.manifest
    return found


def test_every_task_is_answered_in_order():
    steps = Steps()
    assert list(outcomes(5, steps).items()) == [(f"s{i}", f"s{i}") for i in range(5)]
    for step in ("read", "segment", "write"):
        assert [i for name, i in steps.diary if name == step] == list(range(5))


def test_no_task_is_no_work():
    assert outcomes(0, Steps()) == {}


def test_the_next_is_read_and_the_last_is_written_while_one_is_segmented():
    class Meeting(Steps):
        """Each step waits for those it should run beside."""

        def __init__(self) -> None:
            super().__init__()
            self.begun = {
                (step, i): threading.Event() for step in ("read", "seg") for i in range(4)
            }

        def meet(self, step, i):
            assert self.begun[step, i].wait(PATIENCE_S), f"{step} of {i} did not begin"

        def read(self, task):
            self.begun["read", place(task)].set()
            return super().read(task)

        def segment(self, task, loaded):
            self.begun["seg", place(task)].set()
            if place(task) < 3:
                self.meet("read", place(task) + 1)
            return super().segment(task, loaded)

        def write(self, task, segmentation):
            if place(task) < 3:
                self.meet("seg", place(task) + 1)
            return super().write(task, segmentation)

    assert outcomes(4, Meeting()) == {f"s{i}": f"s{i}" for i in range(4)}


def test_no_more_than_one_scan_is_read_ahead_and_three_are_in_memory():
    alive: weakref.WeakSet[Scan] = weakref.WeakSet()

    class Counting(Steps):
        def read(self, task):
            loaded = super().read(task)
            alive.add(loaded.volume)
            counts.append(len(alive))
            return loaded

        def segment(self, task, loaded):
            # time for a reader that does not wait
            time.sleep(0.02)
            ahead.append(max(i for step, i in self.diary if step == "read") - place(task))
            return super().segment(task, loaded)

        def write(self, task, segmentation):
            time.sleep(0.05)
            return super().write(task, segmentation)

    counts: list[int] = []
    ahead: list[int] = []
    outcomes(8, Counting())
    assert max(counts) == 3
    assert set(ahead) == {0, 1}


def test_a_result_that_is_written_is_let_go_while_the_next_scan_is_segmented():
    written: list[weakref.ref] = []
    is_written = threading.Event()

    class Watching(Steps):
        def segment(self, task, loaded):
            if place(task) == 1:
                assert is_written.wait(PATIENCE_S)
                end = time.monotonic() + PATIENCE_S
                while written[0]() is not None and time.monotonic() < end:
                    time.sleep(0.001)
                assert written[0]() is None
            else:
                written.append(weakref.ref(loaded.volume))
            return super().segment(task, loaded)

        def write(self, task, segmentation):
            is_written.set()
            return super().write(task, segmentation)

    assert outcomes(2, Watching()) == {"s0": "s0", "s1": "s1"}


@pytest.mark.parametrize("step", ["read", "segment", "write"])
def test_an_error_belongs_to_the_scan_it_befell(step):
    class Failing(Steps):
        def fail_on(self, at, task):
            if at == step and place(task) == 1:
                raise InputError("is torn.", path=task.job.scan)

        def read(self, task):
            self.fail_on("read", task)
            return super().read(task)

        def segment(self, task, loaded):
            self.fail_on("segment", task)
            return super().segment(task, loaded)

        def write(self, task, segmentation):
            self.fail_on("write", task)
            return super().write(task, segmentation)

    found = outcomes(4, Failing())
    assert found == {
        "s0": "s0",
        "s1": "error[E300 unusable-input] s1: is torn.",
        "s2": "s2",
        "s3": "s3",
    }
    assert list(found) == ["s0", "s1", "s2", "s3"]


def test_an_answer_that_stands_is_neither_segmented_nor_written():
    class Keeping(Steps):
        def read(self, task):
            return Answer("kept", {}, is_kept=True) if place(task) != 1 else super().read(task)

    steps = Keeping()
    assert outcomes(3, steps) == {"s0": "kept", "s1": "s1", "s2": "kept"}
    assert steps.diary == [("read", 1), ("segment", 1), ("write", 1)]


def test_a_model_that_cannot_be_loaded_ends_the_run():
    class Damaged(Steps):
        def load(self):
            raise ModelError("is damaged.")

    with pytest.raises(ModelError, match="damaged"):
        outcomes(2, Damaged())


def test_when_stopped_the_result_being_written_is_finished_and_no_other_is_begun():
    is_writing = threading.Event()

    class Stopped(Steps):
        def segment(self, task, loaded):
            if place(task) == 1:
                assert is_writing.wait(PATIENCE_S)
                raise Cancelled("stopped;")
            return super().segment(task, loaded)

        def write(self, task, segmentation):
            is_writing.set()
            time.sleep(0.05)
            return super().write(task, segmentation)

    steps = Stopped()
    with pytest.raises(Cancelled):
        outcomes(3, steps)
    assert [i for step, i in steps.diary if step == "write"] == [0]
    assert ("segment", 2) not in steps.diary


def test_a_reader_that_is_waited_for_ends_before_a_stopped_run_does():
    """What Ctrl-C does while the next scan is not there yet."""

    class Waiting(Steps):
        def read(self, task):
            if place(task) == 1:
                end = time.monotonic() + PATIENCE_S
                while not is_waited_for() and time.monotonic() < end:
                    time.sleep(0.001)
                signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)
                time.sleep(0.05)
            return super().read(task)

    def is_waited_for() -> bool:
        frame = sys._current_frames()[threading.main_thread().ident]
        while frame is not None and frame.f_code is not overlap._Later.wait.__code__:
            frame = frame.f_back
        return frame is not None

    before, steps = set(threading.enumerate()), Waiting()
    with stopping_on_signals(), pytest.raises(Cancelled):
        outcomes(3, steps)
    assert ("read", 1) in steps.diary
    assert set(threading.enumerate()) <= before


def test_the_interpreter_waits_for_a_step_that_was_lost_sight_of():
    program = """
        import time
        from textseg.cli.overlap import _Later
        _Later(lambda: (time.sleep(0.2), print("finished")))
    """
    answer = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)], capture_output=True, text=True, check=True
    )
    assert answer.stdout == "finished\n"


def test_no_thread_outlives_the_run():
    class Slow(Steps):
        """The first scan cannot be segmented while the second takes long to read."""

        def load(self):
            raise ModelError("is damaged.")

        def read(self, task):
            time.sleep(0.05 * place(task))
            return super().read(task)

    before = set(threading.enumerate())
    with pytest.raises(ModelError):
        outcomes(3, Slow())
    assert set(threading.enumerate()) <= before
    outcomes(3, Steps())
    assert set(threading.enumerate()) <= before
