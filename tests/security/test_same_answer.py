"""The same audio gives the same answer, whichever door it takes and whatever runs the model.

The microphone and the browser end in ``StreamDecoder.push``, whose windows are bit for bit what
``load_audio`` reads (tests/test_stream.py); what they say of whole words is heard in tests/e2e.
"""

import io
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import soundfile
import soxr

from speech.audio import load_audio
from speech.recognizer import Recognizer, load
from tests import exports
from tests.conftest import PROJECT
from tests.security.conftest import MODEL

RATE = 16_000
WORDS = ("yes", "no", "up", "down", "left", "right", "stop", "go")
SUBTYPES = ("PCM_16", "PCM_24", "FLOAT")


@pytest.fixture(scope="module")
def clips(speech_commands) -> dict[str, npt.NDArray[np.int16]]:
    """Two clips of every command that the corpus at hand has, int16 at 16 kHz."""
    found = {}
    for word in WORDS:
        for path in sorted((speech_commands / word).glob("*"))[:2]:
            waveform = load_audio(path, RATE)
            found[f"{word}/{path.name}"] = np.round(waveform * 32_768).astype(np.int16)
    assert len(found) >= 8
    return found


@pytest.fixture(scope="module")
def recognizer() -> Recognizer:
    return load(MODEL)


@pytest.fixture(scope="module")
def answers(recognizer, clips) -> dict[str, npt.NDArray[np.float64]]:
    """What the model says of each clip as an array."""
    return {name: asked(recognizer, (clip, RATE)) for name, clip in clips.items()}


def asked(recognizer: Recognizer, source: object) -> npt.NDArray[np.float64]:
    prediction = recognizer.recognize(source)  # type: ignore[arg-type]
    return np.array(list(prediction.probabilities.values()))


def encoded(samples: npt.NDArray, rate: int, subtype: str, channels: int) -> bytes:
    file = io.BytesIO()
    frames = np.repeat(samples[:, np.newaxis], channels, axis=1)
    soundfile.write(file, frames, rate, format="WAV", subtype=subtype)
    return file.getvalue()


@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("subtype", SUBTYPES)
def test_at_the_models_rate_every_coding_and_every_door_gives_the_same_probabilities(
    recognizer, clips, answers, subtype, channels, tmp_path
):
    for name, clip in clips.items():
        content = encoded(clip / 32_768, RATE, subtype, channels)
        path = tmp_path / "clip.wav"
        path.write_bytes(content)
        as_floats = np.repeat((clip / 32_768)[:, np.newaxis], channels, axis=1)
        for source in (path, str(path), content, io.BytesIO(content), (as_floats, RATE)):
            np.testing.assert_allclose(asked(recognizer, source), answers[name], atol=1e-3)


@pytest.mark.parametrize("rate", [44_100, 48_000])
def test_at_any_rate_with_any_channels_and_coding_the_label_is_the_same(
    recognizer, clips, answers, rate
):
    for name, clip in clips.items():
        raised = np.clip(soxr.resample(clip / 32_768, RATE, rate), -1, 1)
        for subtype in SUBTYPES:
            for channels in (1, 2):
                heard = asked(recognizer, encoded(raised, rate, subtype, channels))
                assert heard.argmax() == answers[name].argmax(), (name, subtype, channels)


def test_the_command_line_says_what_python_says(clips, answers, tmp_path):
    for index, clip in enumerate(clips.values()):
        (tmp_path / f"{index:02}.wav").write_bytes(encoded(clip / 32_768, RATE, "PCM_16", 1))
    done = subprocess.run(
        [sys.executable, "-m", "speech", "recognize", tmp_path, "--json", "--model", MODEL],
        cwd=PROJECT, capture_output=True, text=True, check=True,
    )  # fmt: skip
    said = {Path(line["file"]).stem: line for line in map(json.loads, done.stdout.splitlines())}
    assert len(said) == len(clips)
    for index, name in enumerate(clips):
        probabilities = list(said[f"{index:02}"]["probabilities"].values())
        np.testing.assert_allclose(probabilities, answers[name], atol=1e-6)


@pytest.mark.slow
def test_keras_onnx_and_litert_give_the_same_probabilities(clips, answers, tmp_path):
    from speech.model import load_model

    exports.write_described(load_model(MODEL / "model.keras"), tmp_path / "model.tflite")
    for file in (MODEL / "model.keras", MODEL / "model.onnx", tmp_path / "model.tflite"):
        other = load(file)
        for name, clip in clips.items():
            heard = asked(other, (clip, RATE))
            np.testing.assert_allclose(heard, answers[name], atol=1e-3, err_msg=f"{file} {name}")
            assert heard.argmax() == answers[name].argmax()
