"""Trains a network on at a falling learning rate, with its teachers, on the processors at hand.

    python experiments/anneal.py START OUT TEACHER [TEACHER ...]

START, OUT and the teachers are folders of runs of ``gpu_session.py``. The best epoch of a long
training may lie where its learning rate is still high; this one begins there and ends near zero.
"""

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from speech.data.datasets import parse_labels
from speech.model import load_model, save_model
from speech.training import trainer
from speech.training.recipes import read_recipe, read_sources
from speech.training.sources import Source, load_sources

DEVICE = "two processor cores (JAX)"
BEGAN_ON = "one NVIDIA H100 (JAX)"
RECIPE = Path(__file__).with_name("annealed.toml")


class LastEpoch(trainer.RunState):
    """A run whose last epoch is taken, where the rate is lowest: what is the best is noise."""

    def load_best(self) -> None:
        """Take the average of the weights as it is now."""
        self.optimizer.finalize_variable_values(self.model.trainable_variables)


def show(row: Mapping[str, Any]) -> None:
    """Print an epoch."""
    if "val_accuracy" in row:
        print({key: round(float(value), 4) for key, value in row.items()}, flush=True)


def main(start: Path, out: Path, teachers: list[Path]) -> None:
    """Train on."""
    labels, config = read_recipe(str(RECIPE))
    corpus = Source(str(RECIPE.parents[1] / "datasets" / "sources" / "speech_commands"))
    data = load_sources([corpus, *read_sources(str(RECIPE))], config.features)
    models = [load_model(path / "model.keras") for path in teachers]
    trainer.RunState = LastEpoch  # type: ignore[misc]
    trainer.train(
        data, parse_labels(labels), config, out,
        teachers=models, start_from=start, resume=True, report=show,
    )  # fmt: skip
    say_where_it_comes_from(out / "model.keras", config.epochs)


def say_where_it_comes_from(path: Path, epochs: int) -> None:
    """Record what a training cannot know: its devices, and that the last epoch is kept."""
    model = load_model(path)
    model.provenance |= {"device": DEVICE, "kept_epoch": epochs}
    model.provenance["command"] = "python experiments/anneal.py START OUT TEACHER TEACHER"
    model.provenance["start_from"] |= {
        "device": BEGAN_ON,
        "command": "python experiments/gpu_session.py run experiments/gpu_plans/balanced.json "
        "DECODED OUT",
    }
    save_model(model, path)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), [Path(path) for path in sys.argv[3:]])
