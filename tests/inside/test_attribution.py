"""Gradients against finite differences, attributions against what they have to sum to."""

import dataclasses

import numpy as np
import pytest

from speech.errors import ModelError
from speech.features import mfcc
from speech.formats.export import synthetic_clips
from speech.formats.weights import FrontEnd, Network
from speech.inside.attribution import attribute, log_odds_gradient
from speech.inside.explanation import OpenModel, open_model, read_clip
from speech.inside.gradients import backpropagate
from speech.inside.trace import Trace, log_mel, trace
from speech.model import Architecture
from tests import exports
from tests.inside.test_trace import SHAPES
from tests.test_docs import CLIP


def opened(architecture: Architecture) -> OpenModel:
    model = exports.model(architecture)
    front = FrontEnd.from_features(model.features)
    return OpenModel("small", model.config(), front, Network.from_model(model))


def log_odds(seen: Trace, target: int) -> np.ndarray:
    p = seen.probabilities[..., target]
    return np.log(p / (1 - p))


@pytest.mark.parametrize("architecture", SHAPES.values(), ids=SHAPES)
def test_gradients_are_the_limit_of_differences_whatever_the_shape_of_the_network(architecture):
    model = opened(architecture)
    x = mfcc(synthetic_clips(model.config.features, 4), model.config.features)[2:].astype(float)
    seen = trace(model.network, x)
    found = backpropagate(model.network, seen, log_odds_gradient(seen.logits, 1)).mfcc
    rng = np.random.default_rng(0)
    for _ in range(10):
        way = rng.normal(size=x.shape)
        above, below = (trace(model.network, x + sign * 1e-5 * way) for sign in (1, -1))
        slope = (log_odds(above, 1) - log_odds(below, 1)) / 2e-5
        np.testing.assert_allclose((found * way).sum(axis=(1, 2)), slope, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("direction", [0, 1])
def test_the_gradient_of_a_state_is_that_of_a_push_which_only_that_state_gets(direction):
    """A bias that is added at one step and taken off again at all others is such a push."""
    model = opened(Architecture((8,), 1, 8))
    network = model.network
    x = mfcc(synthetic_clips(model.config.features, 4), model.config.features)[2:].astype(float)
    seen = trace(network, x)
    found = backpropagate(network, seen, log_odds_gradient(seen.logits, 1))
    # the state of the last step that a direction reads acts through attention only
    last = (-1, 0)[direction]
    assert network.attention is not None
    kernel, bias, query = network.attention
    states = np.concatenate([c.hidden for c in seen.lstm_layers[0]], axis=-1)

    def answer(moved: np.ndarray) -> np.ndarray:
        scores = (np.tanh(moved @ kernel + bias) @ query)[..., 0]
        weights = np.exp(scores) / np.exp(scores).sum(axis=1, keepdims=True)
        pooled = np.einsum("bt,btn->bn", weights, moved)
        logits = pooled @ network.classifier[0] + network.classifier[1]
        return log_odds(dataclasses.replace(seen, logits=logits), 1)

    for unit in range(8):
        way = np.zeros_like(states)
        way[:, last, 8 * direction + unit] = 1e-5
        slope = (answer(states + way) - answer(states - way)) / 2e-5
        np.testing.assert_allclose(found.hidden[0][direction][:, last, unit], slope, rtol=1e-4)


def test_attributions_sum_to_the_difference_to_silence(real_or_shipped_clips):
    model = open_model()
    for clip in real_or_shipped_clips:
        found = attribute(model, log_mel(model.front, model.config.features, clip))
        assert found.error < 0.01
        assert found.values.sum() == pytest.approx(found.score - found.silence_score, rel=0.01)


def test_attributions_of_any_class_can_be_asked_for(left):
    model = open_model()
    mel = log_mel(model.front, model.config.features, left)
    found = attribute(model, mel, "right")
    assert found.label == "right"
    assert found.error < 0.01
    assert found.score < attribute(model, mel).score
    with pytest.raises(ModelError, match=r"expected one of yes, .+ got 'maybe'"):
        attribute(model, mel, "maybe")


def test_what_is_attributed_most_is_where_the_word_is(left):
    """The clip with only the frames of the highest attributions keeps the answer."""
    model = open_model()
    mel = log_mel(model.front, model.config.features, left)
    found = attribute(model, mel)
    frames = found.values.sum(axis=1)
    most = frames >= np.quantile(frames, 0.6)
    for kept, expected in ((most, True), (~most, False)):
        x = np.where(kept[:, None], mel, 0) @ model.front.dct.T + model.front.offset
        best = trace(model.network, x).logits.argmax()
        assert (model.config.labels[best] == "left") == expected


@pytest.fixture
def left():
    return read_clip(CLIP, open_model(), on_note=lambda note: None)


@pytest.fixture
def real_or_shipped_clips(left, request):
    from speech.audio import fit_length, load_audio

    try:
        folder = request.getfixturevalue("speech_commands")
    except pytest.skip.Exception:
        return [left]
    names = (folder / "validation_list.txt").read_text("utf-8").split()[::1100]
    return [left, *(fit_length(load_audio(folder / name), 16_000) for name in names)]
