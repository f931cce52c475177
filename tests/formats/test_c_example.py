"""The C example answers as Python does, step by step."""

import os
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
import soundfile

import speech
from speech.audio import load_audio

ROOT = Path(__file__).parents[2]
MODEL = ROOT / "saved_models" / "commands-8-tiny" / "model-int8.tflite"
EXAMPLE = ROOT / "speech" / "web" / "static" / "examples" / "seven_words.flac"


@pytest.fixture(scope="module")
def program(tmp_path_factory) -> Path:
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None and not os.environ.get("CI"):
        pytest.skip("there is no C compiler")
    assert compiler is not None, "CI needs a C compiler: apt-get install gcc libc6-dev"
    library = pytest.importorskip("ai_edge_litert").__path__[0]
    built = tmp_path_factory.mktemp("c") / "stream"
    source = str(ROOT / "examples" / "c" / "stream.c")
    strict = ["-std=c11", "-Wall", "-Wextra", "-Wpedantic", "-Werror", "-O1"]
    linked = [f"-L{library}", "-lLiteRt", f"-Wl,-rpath,{library}"]
    subprocess.run([compiler, *strict, source, "-o", str(built), *linked], check=True)
    return built


def run(program: Path, model: Path, recording: Path) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [program, model, recording], capture_output=True, text=True, timeout=120, check=False
    )


def test_every_step_in_c_is_that_of_python(program, tmp_path):
    sound = load_audio(EXAMPLE, 16_000)
    soundfile.write(tmp_path / "words.wav", sound, 16_000, subtype="PCM_16")
    model = speech.load(MODEL)
    whole = sound[: len(sound) // 640 * 640]
    expected, _ = model.advance(whole, model.begin())

    lines = run(program, MODEL, tmp_path / "words.wav").stdout.splitlines()

    rows = np.array([line.split() for line in lines], float)
    np.testing.assert_allclose(rows[:, 0], 0.04 * np.arange(1, len(expected) + 1), atol=1e-3)
    np.testing.assert_allclose(rows[:, 1:], expected, atol=1e-6)


@pytest.mark.parametrize(
    ("model", "recording", "said"),
    [
        (MODEL, "music.wav", "expected a WAV file of 16-bit PCM, mono"),
        (MODEL, "nowhere.wav", "expected a WAV file of 16-bit PCM, mono"),
        (Path("nowhere.tflite"), "good.wav", "nowhere.tflite failed with status"),
    ],
)
def test_what_is_no_recording_or_no_model_is_one_line(program, tmp_path, model, recording, said):
    silence = np.zeros(1600, np.float32)
    soundfile.write(tmp_path / "music.wav", np.stack([silence] * 2, 1), 16_000)
    soundfile.write(tmp_path / "good.wav", silence, 16_000, subtype="PCM_16")
    result = run(program, model, tmp_path / recording)
    assert result.returncode == 1
    assert said in result.stderr
    assert not result.stdout
