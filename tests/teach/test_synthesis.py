"""Takes by text-to-speech: by espeak-ng itself, and what Kokoro is asked, by a model that tells."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import speech
from speech.errors import TeachError
from speech.files import sha256
from speech.teach import synthesis
from speech.teach.synthesis import Espeak, Kokoro, phonemes, synthesize
from speech.teach.takes import check_takes, read_takes

ROOT = Path(__file__).parents[2]
STRESS = "\N{MODIFIER LETTER VERTICAL LINE}"


@pytest.fixture(autouse=True)
def needs_espeak(skip_or_fail) -> None:
    if shutil.which("espeak-ng") is None:
        skip_or_fail("espeak-ng is not installed")


@pytest.fixture(scope="module")
def recognizer() -> speech.Recognizer:
    return speech.load()


@pytest.mark.parametrize("word", ["yes", "stop", "left"])
def test_a_synthetic_word_is_recognized_in_every_voice_and_no_take_is_bad(word, recognizer):
    takes = synthesize(word, 14, Espeak())
    labels = [recognizer.recognize(take, sample_rate=16_000).label for take in takes]
    assert labels.count(word) >= 13
    assert check_takes(takes) == []
    assert all(0.09 < np.abs(take).max() < 0.71 for take in takes)


def test_the_same_seed_gives_the_same_takes_and_another_one_others():
    once, again = (synthesize("hey robot", 3, Espeak(), seed=1) for _ in range(2))
    other = synthesize("hey robot", 3, Espeak(), seed=2)
    assert all(map(np.array_equal, once, again))
    assert not any(map(np.array_equal, once, other))


@pytest.mark.parametrize(
    ("word", "voice", "symbols"),
    [
        # as Kokoro's own front end wrote them for its users' voices
        ("cheese", "en-us", f"ʧ{STRESS}iz"),
        ("elbow", "en-us", f"{STRESS}ɛlbO"),
        ("elbow", "en-gb", f"{STRESS}ɛlbQ"),
        ("hey", "en-us", f"h{STRESS}A"),
    ],
)
def test_phonemes_are_written_as_kokoro_knows_them(word, voice, symbols):
    assert phonemes(word, voice) == symbols


def test_what_cannot_be_spoken_is_refused(refused, monkeypatch):
    message = refused(TeachError, lambda: synthesize("robot", 1, Espeak("xx")))
    assert "voice does not exist" in message
    refused(TeachError, lambda: synthesize("a/b", 1, Espeak()))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Espeak, "say", lambda *_: np.zeros(8000, np.float32))
        assert "got silence" in refused(TeachError, lambda: synthesize("robot", 1, Espeak()))
    monkeypatch.setenv("PATH", "/nowhere")
    assert "apt-get install espeak-ng" in refused(TeachError, Espeak)


# --- Kokoro --------------------------------------------------------------------------------------


@pytest.fixture
def kokoro(tmp_path, monkeypatch) -> Path:
    """A folder whose model answers with what it was asked, a thousandth of it."""
    onnx = pytest.importorskip("onnx")
    from onnx import TensorProto, helper

    inputs = [
        helper.make_tensor_value_info("tokens", TensorProto.INT64, [1, "n"]),
        helper.make_tensor_value_info("style", TensorProto.FLOAT, [1, 256]),
        helper.make_tensor_value_info("speed", TensorProto.FLOAT, [1]),
    ]
    nodes = [
        helper.make_node("Cast", ["tokens"], ["ids"], to=TensorProto.FLOAT),
        helper.make_node("Flatten", ["ids"], ["flat_ids"], axis=0),
        helper.make_node("Flatten", ["style"], ["flat_style"], axis=0),
        helper.make_node("Flatten", ["speed"], ["flat_speed"], axis=0),
        helper.make_node("Concat", ["flat_ids", "flat_style", "flat_speed"], ["all"], axis=1),
        helper.make_node("Constant", [], ["thousandth"], value_float=1e-3),
        helper.make_node("Mul", ["all", "thousandth"], ["less"]),
        helper.make_node("Constant", [], ["flat"], value_ints=[-1]),
        helper.make_node("Reshape", ["less", "flat"], ["audio"]),
    ]
    output = helper.make_tensor_value_info("audio", TensorProto.FLOAT, ["m"])
    graph = helper.make_graph(nodes, "echo", inputs, [output])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, str(tmp_path / "kokoro_int8.onnx"))
    symbols = {symbol: number for number, symbol in enumerate(f"$ʧ{STRESS}iz.ɛlbQO")}
    (tmp_path / "vocab.json").write_text(json.dumps({"vocab": symbols}))
    (tmp_path / "voices").mkdir()
    for name in ("bf_emma", "jf_alpha"):
        rows = np.repeat(np.arange(510, dtype="<f4"), 256)
        rows.tofile(tmp_path / "voices" / f"{name}.bin")
    digest = sha256(tmp_path / "kokoro_int8.onnx")
    monkeypatch.setattr(synthesis, "_KOKORO_SHA256", digest)
    monkeypatch.setattr(synthesis, "_KOKORO_RATE", 16_000)  # so that nothing is resampled
    return tmp_path


def test_kokoro_is_asked_for_the_symbols_the_style_of_their_number_and_a_speed(kokoro):
    engine = Kokoro(kokoro)
    assert engine.voices == 1, "of English speakers, where there are some"
    heard = 1000 * engine.say("cheese", 0, np.random.default_rng(0))
    ids = [0, 1, 2, 3, 4, 5, 0]
    assert np.allclose(heard[:7], ids, atol=0.05)
    assert np.allclose(heard[7:-1], 5, atol=0.05)
    assert 0.7 <= heard[-1] <= 1.3
    british = 1000 * engine.say("elbow", 0, np.random.default_rng(0))
    assert round(british[5]) == 9, "a British voice speaks as British people do"


def test_a_folder_that_is_not_kokoros_is_refused(kokoro, refused, monkeypatch):
    (kokoro / "voices" / "bf_emma.bin").write_bytes(bytes(100))
    assert "a voice of 510 x 256" in refused(TeachError, lambda: Kokoro(kokoro))
    shutil.rmtree(kokoro / "voices")
    assert "expected voices/*.bin" in refused(TeachError, lambda: Kokoro(kokoro))
    (kokoro / "vocab.json").write_text("[]")
    assert "expected vocab.json" in refused(TeachError, lambda: Kokoro(kokoro))
    monkeypatch.undo()
    assert "got another one" in refused(TeachError, lambda: Kokoro(kokoro))
    (kokoro / "kokoro_int8.onnx").unlink()
    assert "got none" in refused(TeachError, lambda: Kokoro(kokoro))


# --- the command ---------------------------------------------------------------------------------


def test_the_command_adds_takes_that_differ_from_those_before(tmp_path):
    program = [sys.executable, "-m", "speech", "synthesize", "robot", "hey robot", "--takes", "2"]
    for _ in range(2):
        done = subprocess.run(
            [*program, "--out", str(tmp_path)], cwd=ROOT, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
    takes = read_takes(tmp_path)
    assert {word: len(of_word) for word, of_word in takes.items()} == {"robot": 4, "hey robot": 4}
    assert check_takes(takes["robot"]) == []
    names = sorted(path.name for path in (tmp_path / "robot").iterdir())
    assert names == [f"synthetic-{n}.wav" for n in (1, 2, 3, 4)]
