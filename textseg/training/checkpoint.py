"""Checkpoints that survive a kill: written aside, checked, renamed; the one before is kept."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import lightning
import torch
from lightning.pytorch.callbacks import Checkpoint
from lightning.pytorch.utilities import rank_zero_only

from textseg.errors import ModelError

LAST = "last.ckpt"
PREVIOUS = "previous.ckpt"
BEST = "best.ckpt"


class ResumableCheckpoint(Checkpoint):
    """Writes ``last.ckpt`` at the end of an epoch, at most every ``minutes``.

    Args:
        folder: Where ``last.ckpt``, ``previous.ckpt`` and ``best.ckpt`` live.
        minutes: Shortest time between two checkpoints; the last epoch always writes one.
        monitor: Logged validation figure, the higher the better, that decides ``best.ckpt``.
    """

    def __init__(self, folder: Path, minutes: float = 4.0, monitor: str = "val/dice") -> None:
        self.folder = Path(folder)
        self.minutes = minutes
        self.monitor = monitor
        self.best = float("-inf")
        self._written_at = time.monotonic()

    def state_dict(self) -> dict[str, Any]:
        """The best figure so far."""
        return {"best": self.best}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Goes on from the best figure of an earlier run."""
        self.best = float(state_dict["best"])

    def on_train_start(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule
    ) -> None:
        """Refuses to begin a new run where another one's checkpoints lie.

        Raises:
            ModelError: E405, there is one and it was not asked to be resumed.
        """
        if trainer.global_step == 0 and (self.folder / LAST).exists():
            raise ModelError(
                "holds the checkpoints of another run.",
                code="E405",
                path=self.folder,
                remedy="Go on from it with --resume, name another folder, or move it away.",
            )

    def on_validation_end(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule
    ) -> None:
        """Keeps the weights that validate best."""
        score = trainer.callback_metrics.get(self.monitor)
        if trainer.sanity_checking or score is None or float(score) <= self.best:
            return
        self.best = float(score)
        write_checkpoint(trainer, self.folder, name=BEST)

    def on_train_epoch_end(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule
    ) -> None:
        """Writes a checkpoint if one is due."""
        final = trainer.current_epoch + 1 == trainer.max_epochs
        due = final or time.monotonic() - self._written_at >= 60 * self.minutes
        # every process has to take part, and their clocks differ
        if trainer.strategy.broadcast(due):
            write_checkpoint(trainer, self.folder)
            self._written_at = time.monotonic()


def write_checkpoint(trainer: lightning.Trainer, folder: Path, *, name: str = LAST) -> Path:
    """Writes a checkpoint so that a kill at any moment leaves it, or the one before, whole.

    Every process of the run calls it; the first one writes.
    """
    folder.mkdir(parents=True, exist_ok=True)
    target, partial = folder / name, folder / f".{name}.{os.getpid()}"
    try:
        trainer.save_checkpoint(partial)
        _publish(partial, target)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
    return target


@rank_zero_only
def _publish(partial: Path, target: Path) -> None:
    """Gives a checkpoint its name, once it is on the disk and can be read."""
    with partial.open("rb") as file:
        os.fsync(file.fileno())
    read_checkpoint(partial)
    if target.name == LAST and target.exists():
        target.replace(target.with_name(PREVIOUS))
    partial.replace(target)


def read_checkpoint(path: Path) -> dict[str, Any]:
    """A checkpoint's contents; nothing in it can execute.

    Raises:
        RuntimeError: The file is damaged.
    """
    contents: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    return contents
