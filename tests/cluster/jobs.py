"""What the tests have other processes do: it has to have a name that these can import."""

import os
from pathlib import Path
from typing import Any

from speech.training.config import TrainConfig
from speech.training.sources import TrainingData
from tests import tiny


def read_and_say_who(folder: Path) -> TrainingData:
    """The tiny corpus, on a worker that leaves a file with its number among the processes."""
    (folder / f"{os.getpid()}.pid").touch()
    return tiny.data(folder)


def read_tiny(folder: Path, config: TrainConfig) -> TrainingData:
    """The tiny corpus, whatever a trial tries."""
    return tiny.data(folder)


def trained_by_one(config: TrainConfig, folder: Path) -> list[dict[str, Any]]:
    """The history of a training by one process."""
    from speech.training import trainer

    rows: list[dict[str, Any]] = []

    def report(row: Any) -> None:
        if "step" not in row:
            rows.append(dict(row))

    trainer.train(tiny.data(folder), tiny.LABELS, config, folder / "run", report=report)
    return rows
