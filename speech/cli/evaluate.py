"""The command that measures models on clips, and what all commands share that take several."""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import typer

from speech.cli import options
from speech.cli.console import console, table, warn
from speech.cli.options import DEFAULT_DATA, DEFAULT_MODEL, DecodingOptions, examples, grouped
from speech.cli.train import summary
from speech.errors import SpeechError
from speech.formats.folder import ModelFolder

if TYPE_CHECKING:
    from speech.data.corpus import SplitOrAll
    from speech.evaluation.metrics import ClipMetrics

app = typer.Typer()


@dataclasses.dataclass(frozen=True)
class MeasureOptions:
    """What to measure on, and what beside the clips of the split."""

    data: options.Data = DEFAULT_DATA
    split: Annotated[str, typer.Option(help="Clips to measure on: validation, test or all.")] = (
        "validation"
    )
    robustness: Annotated[
        bool,
        typer.Option(
            "--robustness", help="Also evaluate under noise, gain, codecs and reverberation."
        ),
    ] = False
    unseen: Annotated[
        list[Path] | None,
        typer.Option(
            help="Folder of SOURCE/WORD/ or WORD/ that nothing trained on; may be repeated.",
            show_default=False,
        ),
    ] = None
    seed_run: Annotated[
        list[Path] | None,
        typer.Option(
            help="Model of the same recipe and another seed, to compare; may be repeated.",
            show_default=False,
        ),
    ] = None


@dataclasses.dataclass(frozen=True)
class ClipMeasurement:
    """Measures a model and writes its card. It travels to the workers.

    Attributes:
        decoding: How the corpus is decoded.
        options: What is measured.
        folders: Where the card of each model is written.
    """

    decoding: DecodingOptions
    options: MeasureOptions
    folders: Mapping[Path, Path]

    def __call__(self, model: Path) -> "ClipMetrics":
        """The figures on the clips of the split."""
        from speech.evaluation import model_card
        from speech.recognizer import load

        recognizer = load(model)
        return model_card.evaluate(
            recognizer,
            self.decoding.read(self.options.data, recognizer.features),
            self.folders[model],
            cast("SplitOrAll", self.options.split),
            robustness=self.options.robustness,
            others=[load(run) for run in self.options.seed_run or []],
            unseen=self.options.unseen or [],
        )


@app.command(
    epilog=examples(
        "speech evaluate saved_models/mine --data my_words --unseen other_people",
        "speech evaluate --split test --robustness",
        "speech evaluate runs/* --data /shared/words --ray auto",
    )
)
@grouped
def evaluate(
    decoding: DecodingOptions,
    more: MeasureOptions,
    models: options.Models = [DEFAULT_MODEL],  # noqa: B006  # typer copies it
    out: options.Out = None,
    ray: options.Ray = "",
    as_json: options.AsJson = False,
) -> None:
    """Measure models on speakers that they were not trained on; write figures and model cards."""
    from speech.cluster.each import each

    if more.split not in ("validation", "test", "all"):
        raise typer.BadParameter(f"expected validation, test or all, got {more.split!r}")
    if len(models) > 1 and more.seed_run:
        raise typer.BadParameter(f"expected one model with --seed-run, got {len(models)}")
    folders = result_folders(models, out)
    measured: dict[Path, ClipMetrics] = {}
    failed: dict[Path, SpeechError] = {}
    for model, answer in each(ClipMeasurement(decoding, more, folders), models, ray):
        if isinstance(answer, SpeechError):
            failed[model] = answer
            continue
        measured[model] = answer
        if as_json:
            named = {"model": str(model)} if len(models) > 1 else {}
            typer.echo(json.dumps(named | answer.to_dict()))
        elif len(models) == 1:
            _print_labels(answer)
            typer.echo(summary(answer, folders[model]))
        else:
            typer.echo(f"{model}: {summary(answer, folders[model])}")
    if len(measured) > 1 and not as_json:
        _print_models({model: measured[model] for model in models if model in measured})
    end(failed, len(models))


def _print_labels(metrics: "ClipMetrics") -> None:
    rows = table("Label", "Clips", "Precision", "Recall", "F1")
    for row in zip(
        metrics.labels, metrics.support, metrics.precision, metrics.recall, metrics.f1, strict=True
    ):
        rows.add_row(row[0], str(row[1]), *(f"{share:.3f}" if row[1] else "" for share in row[2:]))
    console().print(rows)


def _print_models(measured: "Mapping[Path, ClipMetrics]") -> None:
    """A row for each model, the best first."""
    rows = table("Model", "Clips", "Accuracy", "95 % interval", "Macro F1")
    for model, m in sorted(measured.items(), key=lambda item: -item[1].accuracy):
        interval = f"{m.accuracy_low:.2%} to {m.accuracy_high:.2%}"
        cells = str(m.n), f"{m.accuracy:.2%}", interval, f"{m.macro_f1:.3f}"
        rows.add_row(str(model), *cells)
    console().print(rows)


# --- what commands share that take several models -----------------------------------------------


def result_folders(models: Sequence[Path], out: Path | None) -> dict[Path, Path]:
    """Where the results of each model go: its folder, or ``out``, with a folder each of several."""
    if out is None:
        return {model: ModelFolder.around(model).path for model in models}
    if len(models) == 1:
        return {models[0]: out}
    folders = {model: out / ModelFolder.around(model).path.name for model in models}
    if len(set(folders.values())) < len(models):
        raise typer.BadParameter(
            "expected models of different names with --out, got two of one; measure them in turn"
        )
    return folders


def end(failed: Mapping[Path, SpeechError], count: int) -> None:
    """End a command in which models have failed: with the error of the only one, or a line each.

    Raises:
        SpeechError: The error of the only model.
    """
    for model, error in failed.items():
        if count == 1:
            raise error
        warn(str(error) if str(error).startswith(str(model)) else f"{model}: {error}")
    if failed:
        raise typer.Exit(next(iter(failed.values())).exit_code)
