"""What the examples share: sound from the microphone or from a recording in, words out."""

import contextlib
import sys
from collections.abc import Iterator
from pathlib import Path

import speech
from speech.installation import DEFAULT_MODEL
from speech.live import session, sources


def listen(wav: Path | None = None, model: str = DEFAULT_MODEL) -> Iterator[session.Item]:
    """What a live session tells, until the recording or the user ends it.

    Args:
        wav: A recording; None for the default microphone.
        model: Name of a bundled model, or the folder of another one.

    Yields:
        A ``speech.Detection`` for each command, and about ten times per second of sound a
        ``Status``, which serves as a clock.
    """
    recognizer = speech.load(model)
    with contextlib.ExitStack() as stack:
        if wav is not None:
            blocks = sources.file_blocks(wav)
        else:
            rate = recognizer.features.sample_rate
            blocks = stack.enter_context(sources.microphone_blocks(sample_rate=rate))
        for item in session.run(blocks, session.decoder_for(recognizer)):
            if isinstance(item, session.Event):
                print(item.message, file=sys.stderr)
            else:
                yield item


def words(wav: Path | None = None, model: str = DEFAULT_MODEL) -> Iterator[speech.Detection]:
    """Only the detections of ``listen``."""
    for item in listen(wav, model):
        if isinstance(item, speech.Detection):
            yield item
