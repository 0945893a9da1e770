"""Runs jobs on a Ray cluster: a worker per device, each with the model loaded once.

Workers read scans and write results themselves, so both have to be on a disk they share. A job is
handed out when a worker is free. One whose worker dies is done once more by another worker; if that
one dies as well, the job has failed.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Generator, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from textseg.cli.answering import Failure, Outcome, Setup, Steps, Task, answer, guarded
from textseg.cli.terminal import UsageError, say, stopping_on_signals, warn
from textseg.errors import ModelError, ResourceError, TextsegError
from textseg.network.weights import find_model

_NUM_TRIALS = 2


class Worker:
    """A process of the cluster that answers one task after the other."""

    def __init__(self, setup: Setup) -> None:
        self._steps = Steps(setup)

    def load(self) -> TextsegError | None:
        """Makes the model ready; returns why it cannot be."""
        try:
            self._steps.load()
        except TextsegError as error:
            return error
        return None

    def answer(self, task: Task) -> Outcome:
        """What came of the task."""
        return guarded(task, lambda: answer(task, self._steps))


@dataclass(frozen=True)
class _Trial:
    """A task on its way to an answer, as it was given and as it is sent."""

    task: Task
    sent: Task
    number: int = 1

    def again(self) -> _Trial:
        """The next trial; it keeps what this one finished and replaces what it only began."""
        delivery = replace(self.sent.delivery, resume=True, overwrite=True)
        return _Trial(self.task, replace(self.sent, delivery=delivery), self.number + 1)


def run_on_ray(
    tasks: Sequence[Task], setup: Setup, *, says_progress: bool
) -> Generator[tuple[Task, Outcome], None, None]:
    """Each task with its outcome, in the order in which they are done.

    Raises:
        ModelError: Ray is not installed (E403), or no worker can load the model.
        ResourceError: The cluster has no room for a worker, or lost all of them.
    """
    with _cluster() as ray, stopping_on_signals():
        crew = _Crew(ray, tasks, setup)
        try:
            for number, (task, outcome) in enumerate(crew.outcomes(), start=1):
                if says_progress:
                    say(f"{number} of {len(tasks)} done: {task.job.name}")
                yield task, outcome
        finally:
            crew.dismiss()


class _Crew:
    """The workers, and the trials that wait for one."""

    def __init__(self, ray: Any, tasks: Sequence[Task], setup: Setup) -> None:
        self._ray = ray
        self._waiting = deque(_Trial(task, _absolute(task)) for task in tasks)
        self._idle: list[Any] = []
        self._loading: dict[Future[Any], Any] = {}
        self._working: dict[Future[Any], tuple[Any, _Trial]] = {}
        self._refusal: TextsegError = ResourceError("the cluster lost all workers.")
        places, needs, self._setup = plan_workers(ray.nodes(), _settled(setup))
        self._actor = ray.remote(**needs)(Worker)
        for _ in range(min(places, len(tasks))):
            self._hire()

    def outcomes(self) -> Iterator[tuple[Task, Outcome]]:
        """Each task with its outcome, as they are done."""
        while self._waiting or self._working:
            if not (self._loading or self._working):
                raise self._refusal
            done, _ = wait([*self._loading, *self._working], return_when=FIRST_COMPLETED)
            settled = []
            for future in done:
                if future in self._loading:
                    self._welcome(future)
                else:
                    settled += self._settle(future)
            self._hand_out()
            yield from settled

    def dismiss(self) -> None:
        """Ends all workers, whatever they are doing."""
        busy = [worker for worker, _ in self._working.values()]
        for worker in [*self._idle, *self._loading.values(), *busy]:
            self._ray.kill(worker)

    def _hire(self) -> None:
        worker = self._actor.remote(self._setup)
        self._loading[worker.load.remote().future()] = worker

    def _welcome(self, future: Future[Any]) -> None:
        """A worker that has loaded the model is idle; one that could not is let go."""
        worker = self._loading.pop(future)
        if self._has_died(future):
            self._refusal = ResourceError("a worker died while it loaded the model.")
        elif future.result() is not None:
            self._refusal = future.result()
            self._ray.kill(worker)
        else:
            self._idle.append(worker)

    def _hand_out(self) -> None:
        while self._idle and self._waiting:
            worker, trial = self._idle.pop(), self._waiting.popleft()
            self._working[worker.answer.remote(trial.sent).future()] = (worker, trial)

    def _settle(self, future: Future[Any]) -> list[tuple[Task, Outcome]]:
        """What came of a trial; nothing yet if its worker died for the first time."""
        worker, trial = self._working.pop(future)
        if not self._has_died(future):
            self._idle.append(worker)
            return [(trial.task, future.result())]
        self._hire()
        name = trial.task.job.name
        if trial.number < _NUM_TRIALS:
            warn(f"{name}: its worker died; another one tries again.")
            self._waiting.appendleft(trial.again())
            return []
        error = ResourceError(
            f"{trial.number} workers died on it, one after the other.",
            path=trial.task.job.scan,
            remedy="Its machine may have too little memory.",
        )
        return [(trial.task, Failure.of(error, trial.task.job))]

    def _has_died(self, future: Future[Any]) -> bool:
        errors = self._ray.exceptions
        error = future.exception()
        # an error raised by the code itself is a fault, and result() raises it
        return isinstance(error, errors.RayError) and not isinstance(error, errors.RayTaskError)


def plan_workers(
    nodes: Sequence[Mapping[str, Any]], setup: Setup
) -> tuple[int, dict[str, int], Setup]:
    """How many workers fit on the machines, what Ray is to keep for each, and how each runs.

    With GPUs there is one worker for each, otherwise one per so many processor cores as it is to
    have threads: by default, all of the smallest machine.

    Raises:
        UsageError: A device is asked for that Ray would have to choose.
        ModelError: There is no GPU.
        ResourceError: No machine has that many cores.
    """
    if setup.device not in {"auto", "cpu", "cuda"}:
        raise UsageError(
            f"--runner ray gives each worker its device; --device {setup.device!r} "
            "must be auto, cpu or cuda."
        )
    machines = [node["Resources"] for node in nodes if node["Alive"]]
    gpus = [(int(m["GPU"]), int(m.get("CPU", 1))) for m in machines if m.get("GPU", 0) >= 1]
    if setup.device == "cuda" and not gpus:
        raise ModelError("no machine of the cluster has a GPU.", remedy="Use --device cpu.")
    if gpus and setup.device != "cpu":
        threads = setup.threads or max(1, min(cores // count for count, cores in gpus))
        needs = {"num_gpus": 1, "num_cpus": threads}
        return sum(n for n, _ in gpus), needs, replace(setup, device="cuda", threads=threads)
    cores = [int(m["CPU"]) for m in machines if m.get("CPU", 0) >= 1]
    threads = setup.threads or min(cores, default=1)
    places = sum(count // threads for count in cores)
    if not places:
        cause = f"no machine of the cluster has {threads} processor cores."
        raise ResourceError(cause, remedy="Give fewer --threads.")
    return places, {"num_cpus": threads}, replace(setup, device="cpu", threads=threads)


def _absolute(task: Task) -> Task:
    """The task with paths that hold in any folder."""
    job = task.job
    return replace(task, job=replace(job, scan=job.scan.absolute(), out=job.out.absolute()))


def _settled(setup: Setup) -> Setup:
    """The setup with a path to the model that holds in any folder, if it is given by a path."""
    folder = find_model(setup.model)
    return replace(setup, model=str(folder.absolute())) if folder == Path(setup.model) else setup


@contextmanager
def _cluster() -> Iterator[Any]:
    """Ray, connected: to the cluster it finds, else to one that lives as long as this command."""
    try:
        import ray
    except ModuleNotFoundError as error:
        raise ModelError(
            "Ray is not installed.", code="E403", remedy='Run: pip install "textseg[ray]"'
        ) from error
    if ray.is_initialized():
        yield ray
        return
    ray.init(include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
    try:
        yield ray
    finally:
        ray.shutdown()
