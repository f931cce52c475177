"""The command that teaches a model words of one's own."""

import json
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from speech.cli import options
from speech.cli.console import console, progress, table, warn
from speech.cli.options import DEFAULT_MODEL, examples
from speech.errors import TeachError

if TYPE_CHECKING:
    from speech.teach.quality import Quality

app = typer.Typer()

Folder = Annotated[
    Path | None,
    typer.Argument(
        metavar="TAKES", show_default="the takes of --out",
        help="Folder with one folder of recordings per word, or a zip of takes.",
    ),
]  # fmt: skip
Out = Annotated[Path, typer.Option("--out", help="Folder of the model.")]
Base = Annotated[
    Path, typer.Option("--base", **options.MODEL_ARGUMENTS | {"help": "Model to build on."})
]
Keep = Annotated[
    str,
    typer.Option(help="Commands of the base to keep: yes,no,stop.", show_default="none"),
]
Remove = Annotated[
    str, typer.Option(help="Words to leave out again: lamp,radio.", show_default="none")
]
Rate = Annotated[
    float,
    typer.Option(min=0.01, max=100, help="False accepts per hour of speech that are allowed."),
]


@app.command(
    epilog=examples(
        "speech teach my_words --out saved_models/mine",
        "speech teach my_words --out saved_models/mine --keep yes,no,stop",
        "speech teach --out saved_models/mine --remove lamp",
        "speech listen --model saved_models/mine",
    )
)
def teach(
    takes: Folder = None,
    out: Out = Path("saved_models/mine"),
    keep: Keep = "",
    remove: Remove = "",
    rate: Rate = 1.0,
    base: Base = DEFAULT_MODEL,
    as_json: options.AsJson = False,
) -> None:
    """Make a model of your own words from a few recordings of each, in seconds."""
    from speech.teach.saving import TAKES
    from speech.teach.takes import read_takes
    from speech.teach.teaching import teach as taught

    of_words = read_takes(takes or out / TAKES)
    kept = _words(keep) or (_kept(out) if takes is None else [])
    for word in _words(remove):
        if word in kept:
            kept.remove(word)
        elif of_words.pop(word, None) is None:
            raise TeachError(
                f"expected words to remove that there are ({', '.join([*of_words, *kept])}), got "
                f"{word!r}; choose one of these",
                parameter="remove",
            )
    with progress("Teaching") as on_progress:
        model = taught(of_words, base=base, keep=kept, rate_per_hour=rate, on_progress=on_progress)
    model.save(out)
    if as_json:
        typer.echo(json.dumps(model.quality.to_dict()))
    else:
        show(model.quality)
    warn(f"Next: speech listen --model {shlex.quote(str(out))}")


def show(quality: "Quality") -> None:
    """The table of the words, and what people should know."""
    rows = table("Word", "Takes", "Recognized without them", "Threshold", "False accepts")
    for label, word in quality.words.items():
        cells = (word.n_takes, word.hits, f"{word.threshold:.3f}", word.false_accepts)
        rows.add_row(label, *map(str, cells))
    console().print(rows)
    for sentence in quality.sentences():
        typer.echo(sentence)


def _kept(folder: Path) -> list[str]:
    """The commands that a taught model has kept."""
    from speech.recognizer import load

    return list(load(folder).provenance.get("kept", []))


def _words(text: str) -> list[str]:
    return [word.strip() for word in text.split(",") if word.strip()]
