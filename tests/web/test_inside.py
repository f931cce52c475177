"""What the Inside tab is sent, and the sentence where a sound or a model cannot be explained."""

import io

import numpy as np
import pytest
import soundfile

pytest.importorskip("gradio")

from starlette.applications import Starlette
from starlette.testclient import TestClient

from speech.environment import limit_blas
from speech.inside.explanation import explain, open_model, read_clip
from speech.inside.packing import unpack
from speech.web.inside import Explainer
from speech.web.models import ModelRegistry
from speech.web.page import EXAMPLES
from speech.web.routes import inside_routes
from tests import exports
from tests.hearing import by_loudness
from tests.sounds import encode, tone
from tests.test_docs import CLIP

limit_blas()  # as the server does
SHIPPED = EXAMPLES.parents[3] / "saved_models" / "commands-8"
SOUND = {"Content-Type": "application/octet-stream"}
RATE = 16_000


def client_for(place) -> TestClient:
    """The routes of the tab, for a page whose model lies there."""
    return TestClient(
        Starlette(routes=inside_routes(Explainer(ModelRegistry(by_loudness(), place))))
    )


@pytest.fixture(scope="module")
def client() -> TestClient:
    return client_for(SHIPPED)


def look(client, content=b"", **query):
    answer = client.post("/inside", params=query, content=content, headers=SOUND)
    assert answer.status_code == 200, answer.json()
    return unpack(answer.content)


def test_a_recording_comes_back_explained_with_its_clip_to_be_played(client):
    header, arrays = look(client, CLIP.read_bytes(), model="by-loudness")
    assert header["answer"] == "left"
    assert "the loudest part is explained" in header["note"]
    assert arrays["probabilities"].shape == (25, len(header["labels"]))
    sound, rate = soundfile.read(io.BytesIO(arrays["sound"].tobytes()), dtype="float32")
    expected = read_clip(CLIP, open_model(), on_note=lambda note: None)
    assert rate == RATE
    np.testing.assert_allclose(sound, expected, atol=1 / 32768)


def test_an_example_is_asked_for_by_its_name(client):
    header, _ = look(client, example="left.wav")
    assert header["answer"] == "left"


def test_of_live_sound_the_end_is_explained_after_silence_where_there_is_less_than_a_clip(client):
    model = open_model()
    clip = read_clip(CLIP, model, on_note=lambda note: None)
    pcm = np.round(32768 * clip).clip(-32768, 32767).astype("<i2")
    for sent, expected in (
        (np.concatenate([pcm[::-1][:8_000], pcm]), pcm),
        (pcm[9_000:], np.concatenate([np.zeros(9_000, "<i2"), pcm[9_000:]])),
    ):
        header, arrays = look(client, sent.tobytes(), rate=RATE, moving=1)
        whole = explain(model, (expected / 32768).astype(np.float32)).arrays()
        assert {"sound", "probabilities"} & arrays.keys() == set()
        cell = "layer.1.backward.cell"
        np.testing.assert_allclose(arrays[cell], whole[cell], atol=1e-3)
        last, arrays = look(client, sent.tobytes(), rate=RATE)
        assert last["answer"] == header["answer"]
        assert {"sound", "probabilities"} <= arrays.keys()


def refusal(client, content=b"", headers=SOUND, **query) -> str:
    answer = client.post("/inside", params=query, content=content, headers=headers)
    assert answer.status_code == 400
    text = answer.json()["error"]
    assert "expected" in text
    assert "got" in text
    assert "\n" not in text
    return str(text)


def test_what_cannot_be_explained_is_refused_in_a_sentence(client):
    short, long = (encode(tone(seconds, RATE), RATE) for seconds in (0.02, 61))
    assert "another kind of file" in refusal(client, b"this is no sound\n")
    assert "an empty file" in refusal(client, b"")
    assert "only a longer recording can be explained" in refusal(client, short)
    assert "60 s" in refusal(client, long)
    assert "choose one of them" in refusal(client, example="../left.wav")
    assert "one of the models" in refusal(client, example="left.wav", model="../x")
    assert "content type" in refusal(client, headers={"Content-Type": "text/plain"})
    assert "a rate of" in refusal(client, b"ab", rate=5)
    assert "whole 16-bit samples" in refusal(client, b"abc", rate=RATE)
    assert "whole 16-bit samples" in refusal(client, b"", rate=RATE)
    assert "at most 4 s" in refusal(client, bytes(2 * RATE * 5), rate=RATE)
    assert "bytes" in refusal(client, bytes(2_000_000), rate=192_000)
    assert "bytes" in refusal(client, headers={**SOUND, "Content-Length": str(1 << 30)})


def test_a_model_that_cannot_be_explained_is_refused_without_a_word_of_where_it_lies(tmp_path):
    int8 = exports.write_described(exports.model(), tmp_path / "int8.onnx", precision="int8")
    litert = tmp_path / "model.tflite"
    litert.write_bytes(b"TFL3")
    for place, why in ((int8, "int8"), (litert, "model.tflite"), (None, "which has none")):
        text = refusal(client_for(place), example="left.wav")
        assert why in text
        assert str(tmp_path) not in text
        assert place is None or "can be explained" in text
