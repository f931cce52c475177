"""The commands that make takes of a word: record, from a microphone, and synthesize."""

import collections
import itertools
import shutil
import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import numpy as np
import typer

from speech.cli import options
from speech.cli.console import progress, warn
from speech.cli.detections import CLEAR, meter
from speech.cli.options import examples, grouped
from speech.errors import MicrophoneError, TeachError

if TYPE_CHECKING:
    from speech.audio import Waveform
    from speech.live.microphone import Block
    from speech.teach.synthesis import Engine

app = typer.Typer()

_COUNTDOWN = ("3", "2", "1")
_BEAT_SECONDS = 0.5
_EARLY_SECONDS = 0.3  # who is told to speak now has often begun
# what makes the takes of a person differ as words do that are said for a purpose
_MANNERS = (
    "as you always say it", "as you always say it", "louder", "softer",
    "from farther away, a step or two back", "faster", "slower", "as a question",
)  # fmt: skip

Takes = Annotated[int, typer.Option(min=1, max=100, help="How many takes.")]
Out = Annotated[Path, typer.Option(help="Folder of the takes: one folder a word.")]


@app.command(
    epilog=examples("speech record robot", "speech record 'hey robot' --takes 12 --device usb")
)
@grouped
def record(
    word: Annotated[str, typer.Argument(help="The word or phrase that will be said.")],
    microphone: options.MicrophoneOptions,
    takes: Takes = 8,
    out: Out = Path("my_words"),
    seconds: Annotated[
        float, typer.Option(min=1, max=5, help="Seconds to say it in, in each take.")
    ] = 2.0,
) -> None:
    """Record takes of a word from the microphone, for `speech teach`; saved if you agree."""
    from speech.teach.takes import RATE, check_label

    word = check_label(word)
    kept: list[Waveform] = []
    with microphone.open(RATE) as blocks:
        warn(f"{takes} takes of {word!r}; Ctrl-C ends it, and nothing is saved before you agree")
        while len(kept) < takes:
            manner = _MANNERS[len(kept) % len(_MANNERS)]
            warn(f"take {len(kept) + 1} of {takes}: say {word!r} {manner}")
            try:
                take = _one_take(blocks, seconds)
            except MicrophoneError as error:
                warn(str(error))
                continue
            if _is_wanted(take):
                kept.append(take)
    _save(word, kept, out)


def _one_take(blocks: "Iterator[Block]", seconds: float) -> "Waveform":
    """Count down, and record what is said then, at the rate of takes."""
    from speech.live import mic_check
    from speech.teach.takes import RATE

    early: collections.deque[Block] = collections.deque()
    for count in _COUNTDOWN:
        until = time.monotonic() + _BEAT_SECONDS
        for block in _metered(blocks, f"{count} "):
            early.append(block)
            while sum(len(b.samples) / b.sample_rate for b in early) > _EARLY_SECONDS:
                early.popleft()
            if time.monotonic() >= until:
                break
    _show("", "now\n")
    wanted = seconds + sum(len(b.samples) / b.sample_rate for b in early)
    recorded = mic_check.record(itertools.chain(early, _metered(blocks, "* ")), wanted)
    _show("", "")
    return mic_check.as_model_input(recorded, RATE)


def _metered(blocks: "Iterable[Block]", sign: str) -> "Iterator[Block]":
    """The same blocks, with a level meter on a terminal."""
    from speech.audio import scale_to_float

    for block in blocks:
        if block.event not in ("", "ready"):
            warn(block.message)
        elif len(block.samples):
            peak = float(np.abs(scale_to_float(block.samples)).max())
            _show(f"{sign}{meter(min(peak, 1.0))}", "")
        yield block


def _show(passing: str, lasting: str) -> None:
    """On a terminal, a line that is written over; elsewhere only what lasts."""
    if sys.stderr.isatty():
        width = shutil.get_terminal_size().columns
        typer.echo(f"{CLEAR}{lasting}{passing[: width - 1]}", nl=False, err=True)
    else:
        typer.echo(lasting, nl=False, err=True)


def _is_wanted(take: "Waveform") -> bool:
    """Whether a take is to be kept: it is good, or it is bad and the user wants it all the same."""
    from speech.teach.takes import RATE, check_takes, trim

    for fault in check_takes([take]):
        warn(f"this take is {fault.reason}: {fault.remedy}")
        return not fault.is_fatal and not typer.confirm("again?", default=True, err=True)
    warn(f"good: {len(trim(take)) / RATE:.1f} s")
    return True


def _save(word: str, takes: "list[Waveform]", out: Path) -> None:
    """Write the takes, trimmed, if the user agrees; they may be played before."""
    from speech.live.microphone import play
    from speech.teach.takes import RATE, trim

    folder = out / word
    trimmed = [trim(take) for take in takes]
    while True:
        question = f"save {len(trimmed)} takes in {folder}? (y)es, (n)o, (p)lay them"
        answer = typer.prompt(question, err=True).strip().lower()[:1]
        if answer == "p":
            for take in trimmed:
                play(take, RATE)
        elif answer == "n":
            warn("nothing was saved")
            return
        elif answer == "y":
            break
    _write(trimmed, folder, "")
    warn(f"saved; when all words are recorded: speech teach {out}")


def _write(takes: "list[Waveform]", folder: Path, prefix: str) -> None:
    """Takes as WAV files, under numbers that are not in use."""
    from speech.files import replacing
    from speech.teach.takes import wav_bytes

    number = 0
    try:
        for take in takes:
            number = next(n for n in itertools.count(number + 1) if not _exists(folder, prefix, n))
            with replacing(folder / f"{prefix}{number}.wav") as part:
                part.write_bytes(wav_bytes(take))
    except OSError as error:
        raise TeachError(
            f"{folder}: expected to write takes, got: {error.strerror or error}; choose another "
            "folder or make room",
            parameter="out",
        ) from error


def _exists(folder: Path, prefix: str, number: int) -> bool:
    return any(folder.glob(f"{prefix}{number}.*"))


@app.command(
    epilog=examples(
        "speech synthesize robot 'hey robot'",
        "speech synthesize licht --language de",
        "speech synthesize robot --kokoro kokoro --takes 28",
    )
)
def synthesize(
    words: Annotated[list[str], typer.Argument(help="Words or phrases to be spoken.")],
    takes: Takes = 20,
    out: Out = Path("my_words"),
    language: options.Language = "en",
    kokoro: options.KokoroFolder = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of every random choice.")] = 0,
) -> None:
    """Make takes of words by text-to-speech, for a first model without a microphone."""
    from speech.teach.synthesis import PREFIX
    from speech.teach.synthesis import synthesize as speak
    from speech.teach.takes import check_label

    words = [check_label(word) for word in words]
    engine = open_engine(language, kokoro)
    for word in words:
        with progress(word) as on_progress:
            # takes that are added to others are other ones
            others = len(list((out / word).glob(f"{PREFIX}*")))
            spoken = speak(word, takes, engine, seed=seed + others, on_progress=on_progress)
        _write(spoken, out / word, PREFIX)
        warn(f"{takes} takes of {word!r} by {engine.name} in {out / word}")


def open_engine(language: str, kokoro: Path | None) -> "Engine":
    """Kokoro where its folder is given, else espeak-ng."""
    from speech.teach.synthesis import Espeak, Kokoro

    if kokoro is None:
        return Espeak(language)
    if language != "en":
        raise typer.BadParameter(
            f"expected --language en beside --kokoro, got {language}; leave out one of them"
        )
    return Kokoro(kokoro)
