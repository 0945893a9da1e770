"""``textseg fit`` and ``textseg pretrain``: LightningCLI over YAML configurations."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lightning.pytorch.cli import LightningCLI, SaveConfigCallback

from textseg.errors import ModelError
from textseg.training.checkpoint import LAST
from textseg.training.datamodule import MixtureDataModule
from textseg.training.pretrain_task import PretrainTask, TreeTexts
from textseg.training.segmentation_task import SegmentationTask


class KeepConfig(SaveConfigCallback):
    """Writes the run's configuration beside its log; a resumed run overwrites it."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **{**kwargs, "overwrite": True})


def fit(arguments: Sequence[str]) -> LightningCLI:
    """Trains a segmenter; ``arguments`` are LightningCLI's, after the word ``fit``."""
    return _run(SegmentationTask, MixtureDataModule, arguments)


def pretrain(arguments: Sequence[str]) -> LightningCLI:
    """Trains a text encoder on the knowledge tree."""
    return _run(PretrainTask, TreeTexts, arguments)


def _run(task: type, datamodule: type, arguments: Sequence[str]) -> LightningCLI:
    return LightningCLI(
        task,
        datamodule,
        args=["fit", *resume_arguments(arguments)],
        save_config_callback=KeepConfig,
        auto_configure_optimizers=False,
        trainer_defaults={"reload_dataloaders_every_n_epochs": 1},
    )


def resume_arguments(arguments: Sequence[str]) -> list[str]:
    """Arguments with ``--resume FOLDER`` turned into the checkpoint it means.

    Raises:
        ModelError: There is no checkpoint to resume from; a run never silently starts anew.
    """
    result = list(arguments)
    if "--resume" not in result:
        return result
    place = result.index("--resume")
    folder = Path(result[place + 1]) if place + 1 < len(result) else Path()
    checkpoint = folder / LAST if folder.is_dir() else folder
    if not checkpoint.is_file():
        raise ModelError(
            "there is no checkpoint to resume from.",
            code="E405",
            path=checkpoint,
            remedy="Start without --resume, or name the folder that holds last.ckpt.",
        )
    result[place : place + 2] = [f"--ckpt_path={checkpoint}"]
    return result
