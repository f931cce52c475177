"""The command that teaches a model words of one's own."""

import dataclasses
import json
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from speech.cli import options
from speech.cli.console import console, progress, table, warn
from speech.cli.options import DEFAULT_MODEL, examples, grouped
from speech.cli.record import open_engine
from speech.errors import TeachError

if TYPE_CHECKING:
    from speech.audio import Waveform
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
Say = Annotated[
    list[str] | None,
    typer.Option(
        "--say", show_default=False,
        help="Word or phrase that text-to-speech says instead of you; may be repeated.",
    ),
]  # fmt: skip
Again = Annotated[
    bool,
    typer.Option(
        "--again", help="Learn from the corrections of speech listen; kept only if it is better."
    ),
]
Back = Annotated[bool, typer.Option("--back", help="Bring back the version before.")]
_SAID_TAKES = 20


@dataclasses.dataclass(frozen=True)
class OtherWays:
    """How a model is taught other than by a folder of takes."""

    say: Say = None
    language: options.Language = "en"
    kokoro: options.KokoroFolder = None
    again: Again = False
    back: Back = False

    def check(self, has_takes: bool) -> None:
        """Refuse options that exclude one another."""
        if self.again + self.back + bool(self.say or has_takes) > 1:
            raise typer.BadParameter(
                "expected takes, --again or --back, got several; choose one of them"
            )

    def spoken(self) -> "tuple[dict[str, list[Waveform]], str]":
        """The takes of the words that text-to-speech says, and what its voices are."""
        from speech.teach.synthesis import synthesize

        if not self.say:
            return {}, ""
        engine = open_engine(self.language, self.kokoro)
        words = {}
        for word in self.say:
            with progress(f"Saying {word}") as on_progress:
                words[word] = synthesize(word, _SAID_TAKES, engine, on_progress=on_progress)
        return words, engine.name


@app.command(
    epilog=examples(
        "speech teach my_words --out saved_models/mine",
        "speech teach my_words --out saved_models/mine --keep yes,no,stop",
        "speech teach --out saved_models/mine --remove lamp",
        "speech teach --say 'hey robot'",
        "speech teach --again --out saved_models/mine",
    )
)
@grouped
def teach(
    ways: OtherWays,
    takes: Folder = None,
    out: Out = Path("saved_models/mine"),
    keep: Keep = "",
    remove: Remove = "",
    rate: Rate = 1.0,
    base: Base = DEFAULT_MODEL,
    as_json: options.AsJson = False,
) -> None:
    """Make a model of your own words from a few recordings of each, in seconds."""
    from speech.teach.teaching import teach as taught

    ways.check(takes is not None)
    if ways.back:
        _bring_back(out)
        return
    if ways.again:
        _teach_again(out)
        return
    of_words, voices = _takes(takes, ways, out)
    kept = _words(keep) or ([] if takes or ways.say else _kept(out))
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
        model = taught(
            of_words,
            base=base,
            keep=kept,
            rate_per_hour=rate,
            voices=voices,
            on_progress=on_progress,
        )
    model.save(out)
    if as_json:
        typer.echo(json.dumps(model.quality.to_dict()))
    else:
        show(model.quality)
    warn(f"Next: speech listen --model {shlex.quote(str(out))}")


def _takes(
    folder: Path | None, ways: OtherWays, out: Path
) -> "tuple[dict[str, list[Waveform]], str]":
    """The takes of each word, and what spoke them if it was no person."""
    from speech.recognizer import load
    from speech.teach.saving import TAKES
    from speech.teach.synthesis import PREFIX
    from speech.teach.takes import read_takes

    spoken, voices = ways.spoken()
    if folder is None and spoken:
        return spoken, voices
    of_words = read_takes(folder or out / TAKES)
    if folder is None:
        voices = load(out).provenance.get("voices", "")
    elif not voices and any(folder.glob(f"*/{PREFIX}*")):
        voices = "text-to-speech"
    return {w: [*of_words.get(w, ()), *spoken.get(w, ())] for w in {**of_words, **spoken}}, voices


def _teach_again(out: Path) -> None:
    """Replace the model if what it learned from its mistakes makes it better."""
    from speech.teach.again import accept, teach_again

    with progress("Teaching") as on_progress:
        model, verdict = teach_again(out, on_progress=on_progress)
    typer.echo(verdict.sentence())
    if not verdict.is_better:
        warn("the model stays as it is, since that is no better; the corrections stay, too")
        return
    accept(out, model)
    warn(f"{out} is the better model now; to undo it: speech teach --back --out {out}")


def _bring_back(out: Path) -> None:
    from speech.teach.again import bring_back

    number = bring_back(out)
    warn(f"{out} is version {number} again; the same command takes that back")


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
