"""``textseg fit``, ``validate``, ``test``, ``pretrain``, ``export``, ``card``: LightningCLI."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal

import yaml
from lightning.pytorch.cli import LightningCLI, SaveConfigCallback

from textseg.datasets import load_cases
from textseg.errors import ModelError
from textseg.knowledge import load_user_tree
from textseg.network.text_encoder import TextEncoderConfig
from textseg.network.weights import ModelManifest, load_encoder
from textseg.outputs.preview import require_matplotlib
from textseg.resources import data_folder
from textseg.training.attempts import read_attempts
from textseg.training.card import write_card
from textseg.training.card_pictures import write_pictures
from textseg.training.checkpoint import LAST, PREVIOUS
from textseg.training.corruptions import CORRUPTIONS
from textseg.training.datamodule import (
    MixtureDataModule,
    domain_space,
    training_cases,
    validation_cases,
)
from textseg.training.export import export_encoder, export_model
from textseg.training.report_gate import ReportGate
from textseg.training.scores import CaseScore, ModelScores, ScanSegmenter, score_model
from textseg.training.segmentation_task import SegmentationTask
from textseg.training.text_atlas import TextAtlasTask
from textseg.training.text_text import TextTextTask
from textseg.training.tree_texts import TreeTexts

logger = logging.getLogger(__name__)


class KeepConfig(SaveConfigCallback):
    """Writes the run's configuration beside its log; a resumed run overwrites it."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **{**kwargs, "overwrite": True})


def fit(arguments: Sequence[str]) -> LightningCLI:
    """Trains a segmenter; ``arguments`` are LightningCLI's, after the word ``fit``."""
    return _run("fit", SegmentationTask, MixtureDataModule, arguments)


def score(stage: Literal["validate", "test"], arguments: Sequence[str]) -> LightningCLI:
    """Scores a checkpoint, or the model it starts from, on its validation or test scans."""
    return _run(stage, SegmentationTask, MixtureDataModule, arguments)


def pretrain(stage: Literal["text-text", "text-atlas"], arguments: Sequence[str]) -> LightningCLI:
    """Trains a text encoder on the knowledge tree, or on what its structures look like."""
    if stage == "text-text":
        return _run("fit", TextTextTask, TreeTexts, arguments)
    return _run("fit", TextAtlasTask, MixtureDataModule, arguments)


def _run(command: str, task: type, datamodule: type, arguments: Sequence[str]) -> LightningCLI:
    with warnings.catch_warnings():
        # it warns whenever the process has words of its own, which here are the same words
        warnings.filterwarnings("ignore", "LightningCLI's args parameter is intended")
        # pretraining uses the data of segmentation without its validation
        warnings.filterwarnings("ignore", "You passed in a `val_dataloader` but have no")
        return _with_fitting_weights(
            task,
            datamodule,
            args=[command, *config_arguments(resume_arguments(arguments))],
            save_config_callback=KeepConfig,
            auto_configure_optimizers=False,
            trainer_defaults={"reload_dataloaders_every_n_epochs": 1},
        )


def _with_fitting_weights(task: type, datamodule: type, **settings: Any) -> LightningCLI:
    """The finished run; a checkpoint of another network or adaptation is told as such."""
    try:
        return LightningCLI(task, datamodule, **settings)
    except RuntimeError as error:
        if "loading state_dict" not in str(error):
            raise
        first = " ".join(str(error).split())[:200]
        raise ModelError(
            f"the checkpoint does not fit the configuration: {first}...",
            code="E402",
            remedy="Give the network and the adaptation that the run had.",
        ) from error


def config_arguments(arguments: Sequence[str]) -> list[str]:
    """Arguments with names of configurations that come with textseg turned into their files.

    ``-c nano`` or ``-c train/nano`` means ``configs/train/nano.yaml`` unless there is a file of
    that name; ``--init-from MODEL`` is short for ``--model.init_from=MODEL``.
    """
    result = [word for given in arguments for word in _separated(given)]
    for place, word in enumerate(result[:-1]):
        if word in ("-c", "--config"):
            result[place + 1] = str(find_config(result[place + 1]))
        if word == "--init-from":
            result[place : place + 2] = [f"--model.init_from={result[place + 1]}", ""]
    return [word for word in result if word]


def _separated(argument: str) -> list[str]:
    """``--config=NAME`` as two words; everything else as it is."""
    name, equals, value = argument.partition("=")
    return [name, value] if equals and name in ("-c", "--config", "--init-from") else [argument]


def find_config(name: str) -> Path:
    """The file of a configuration, given by path or by the name of one that ships."""
    path = Path(name)
    if path.exists() or path.suffix:
        return path
    root = data_folder("configs")
    shipped = sorted([*root.glob(f"{name}.yaml"), *root.glob(f"*/{name}.yaml")])
    return shipped[0] if shipped else path


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
    checkpoint = _newest(folder) if folder.is_dir() else folder
    if not checkpoint.is_file():
        raise ModelError(
            "there is no checkpoint to resume from.",
            code="E405",
            path=checkpoint,
            remedy="Start without --resume, or name the folder that holds last.ckpt.",
        )
    result[place : place + 2] = [f"--ckpt_path={checkpoint}"]
    return result


def export(
    checkpoint: Path,
    folder: Path,
    *,
    config: Path,
    cases: Path | None = None,
    omit: Sequence[str] = (),
    gate: ReportGate | None = None,
    **about: str,
) -> ModelManifest:
    """Turns a checkpoint of ``fit``, or of ``pretrain``, into a model folder.

    Args:
        checkpoint: What the run wrote.
        folder: Where to.
        config: The configuration of that run, as given or as kept beside its log.
        cases: Case list to use in place of the configuration's.
        omit: Concepts that the model shall not offer.
        gate: What a model that reads reports is asked before it is written.
        about: ``name``, ``version`` and ``licence`` of the model.

    Raises:
        ModelError: A file is missing (E405), the checkpoint is of another network (E402), or the
            gate keeps the model out.
    """
    config = find_config(str(config))
    for path in (checkpoint, config):
        if not path.is_file():
            raise ModelError("there is no such file.", code="E405", path=path)
    settings = _settings(config)
    if "encoder" in settings["model"]:
        encoder = TextEncoderConfig.model_validate(settings["model"]["encoder"])
        return export_encoder(checkpoint, folder, config=encoder, **about)
    run = _instantiated(settings, cases)
    listed, tree = load_cases(run.datamodule.cases_path), load_user_tree()
    # which concepts a domain holds follows from the case list; no scan needs to be read
    spaces = [
        (domain, domain_space(domain, training_cases(domain, listed), tree))
        for domain in run.datamodule.domains
    ]
    write = partial(
        export_model,
        checkpoint,
        network=run.model.network.config,
        adaptation=run.model.adaptation,
        spaces=spaces,
        encoder=load_encoder(run.datamodule.encoder),
        omit=omit,
        report_encoder=run.datamodule.report_encoder,
        name=about["name"],
        version=about["version"],
        licence=about["licence"],
    )
    if gate is None or run.model.network.config.report is None:
        return write(folder)
    held_out = {c.id: c for domain, _ in spaces for c in validation_cases(domain, listed)}
    measured = gate.measure(write, list(held_out.values()), name=about["name"])
    return write(folder, sensitivity=measured)


def card(
    segmenter: ScanSegmenter,
    folder: Path,
    *,
    config: Path,
    cases: Path | None = None,
    corrupt: bool = True,
    draw: bool = True,
    progress: Callable[[CaseScore], None] | None = None,
) -> ModelScores:
    """Scores a model on the validation scans of its training run and writes its card.

    Args:
        segmenter: The model, loaded.
        folder: Its folder, where ``scores.json`` and ``CARD.md`` go.
        config: The configuration of the training run.
        cases: Case list to use in place of the configuration's.
        corrupt: Score a scan of each data set made worse in several ways as well.
        draw: Draw the best and the worst structures of some scans (needs the ``viewer`` extra).
        progress: Called after each scan.

    Raises:
        ModelError: Pictures are to be drawn and matplotlib is not installed (E403), or the
            attempts in the folder cannot be read.
    """
    if draw:
        require_matplotlib()
    attempts = read_attempts(folder)
    run = _instantiated(_settings(find_config(str(config))), cases)
    listed = load_cases(run.datamodule.cases_path)
    domains = run.datamodule.domains
    corruptions = CORRUPTIONS if corrupt else {}
    scores = score_model(segmenter, domains, listed, corruptions=corruptions, progress=progress)
    trained_on = [case for domain in domains for case in training_cases(domain, listed)]
    pictures = write_pictures(folder, scores, segmenter=segmenter, cases=listed) if draw else ()
    write_card(
        folder,
        scores,
        manifest=segmenter.manifest,
        trained_on=trained_on,
        tree=segmenter.tree,
        pictures=pictures,
        attempts=attempts,
    )
    return scores


def _settings(config: Path) -> dict[str, Any]:
    """The configuration of a run."""
    settings: dict[str, Any] = yaml.safe_load(config.read_text(encoding="utf-8"))
    return settings


def _instantiated(settings: dict[str, Any], cases: Path | None) -> LightningCLI:
    """Task and data module of a run, without its trainer's devices, logs and callbacks."""
    data = {**settings["data"], **({"cases": str(cases)} if cases else {})}
    # the checkpoint holds the weights, whatever training started from
    model = {key: value for key, value in settings["model"].items() if key != "init_from"}
    return LightningCLI(
        SegmentationTask,
        MixtureDataModule,
        args={"model": model, "data": data},
        run=False,
        save_config_callback=None,
        auto_configure_optimizers=False,
        seed_everything_default=False,
        trainer_defaults={"accelerator": "cpu", "logger": False, "enable_checkpointing": False},
    )


def _newest(folder: Path) -> Path:
    """The last checkpoint, or the one before if the run was killed between two renames."""
    last, previous = folder / LAST, folder / PREVIOUS
    if last.is_file() or not previous.is_file():
        return last
    logger.warning("%s is not there; going on from %s", last, previous.name)
    return previous
