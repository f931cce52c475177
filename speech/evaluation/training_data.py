"""What a model card may say of the data that trained a model: taken from its provenance only."""

import re
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from speech.evaluation.stream_card import training_names


class Collection(NamedTuple):
    """A published collection of recordings, known by the name of its folder."""

    title: str
    voices: str
    license: str


_SPEECH_COMMANDS = Collection(
    "Speech Commands (Pete Warden, Google, 2018, arXiv 1804.03209)",
    "volunteers who recorded single English words in 2017 and 2018 at their own computers; "
    "children, strong accents, far microphones and other languages are rare among them",
    "Creative Commons BY 4.0",
)
_KOKORO = Collection(
    "synthetic speech of Kokoro-82M", "28 English voices of a text-to-speech model", "Apache-2.0"
)
_FLITE = Collection(
    "synthetic speech of Flite", "four voices of a text-to-speech program, one of them Scottish",
    "the license of Flite, which is like BSD's",
)  # fmt: skip
_PROGRAMS = Collection(
    "words that Tux Paint and KTuberling say, of Debian's packages",
    "people who recorded names of animals and things for two programs, in some twenty languages",
    "GPL-2 or later",
)
_WAKE_WORDS = Collection(
    "the audio of Picovoice's wake-word-benchmark",
    "many speakers who say a few English phrases",
    "Apache-2.0",
)
_KNOWN = {
    r"speech_commands\w*(\.\w+)*": _SPEECH_COMMANDS,
    r"isolated_words": Collection(
        "DSPSpeech-20 (Zhongyu Chen and others)",
        "34 Chinese students who say English and Mandarin words",
        "MIT",
    ),
    r"spoken_digits": Collection(
        "the Free Spoken Digit Dataset",
        "six speakers of English digits",
        "Creative Commons BY-SA 4.0",
    ),
    r"synthetic_(speech|words|sentences)(/\w+)?": _KOKORO,
    r"flite_words": _FLITE,
    r"program_words": _PROGRAMS,
    r"read_sentences": Collection(
        "rhasspy's dataset-voice-kathleen", "one woman who reads English sentences", "CC0 1.0"
    ),
    r"alexa|computer|jarvis|smart_mirror|snowboy|view_glass|negative_speech": _WAKE_WORDS,
}


def collections(provenance: Mapping[str, Any]) -> dict[Collection | None, list[str]]:
    """The folders that trained a model, by what they are; None for those that are not known."""
    found: dict[Collection | None, list[str]] = {}
    for name in sorted(training_names(provenance)):
        known = (kind for pattern, kind in _KNOWN.items() if re.fullmatch(pattern, name))
        found.setdefault(next(known, None), []).append(name)
    return found


def voices_sentences(provenance: Mapping[str, Any]) -> Iterator[str]:
    """Whose voices the model knows."""
    for collection, names in collections(provenance).items():
        folders = ", ".join(f"`{name}`" for name in names)
        if collection is None:
            yield (
                f"Whose voices are in {folders} is not recorded. Expect less of other people, "
                "rooms and microphones than of theirs."
            )
        else:
            yield f"The voices of {folders} are those of {collection.voices}."
    if not training_names(provenance):
        yield "Nothing is recorded of the voices that it was trained on."


def license_section(provenance: Mapping[str, Any]) -> str:
    """What is known of the license of weights and recordings."""
    lines = ["## License", ""]
    known = collections(provenance)
    for collection, names in known.items():
        folders = ", ".join(f"`{name}`" for name in names)
        if collection is None:
            lines.append(
                f"- {folders}: the license of these recordings is not recorded. Ask those who "
                "speak in them before you pass the model on."
            )
        else:
            lines.append(f"- {folders}: {collection.title}, {collection.license}.")
    if None in known or not known:
        lines[1:1] = ["", "The code is MIT. The weights were made from the recordings named here."]
    else:
        lines[1:1] = ["", "The weights are MIT, as the code is. They were trained on:"]
    return "\n".join(lines) + "\n"


def device_phrase(provenance: Mapping[str, Any]) -> str:
    """On what the training ran, such as `` on the CPU``; empty where that is not recorded."""
    device = provenance.get("device")
    if device:
        return f" on {device}"
    versions = provenance.get("versions") or {}
    if "tensorflow-cpu" in versions and "tensorflow" not in versions and "jax" not in versions:
        return " on the CPU"  # that build of TensorFlow knows no other device
    return ""
