import dataclasses
import json
import os
import subprocess
import sys
import zipfile
from importlib.util import find_spec
from pathlib import Path

import keras
import numpy as np
import pytest

from speech.errors import ModelError
from speech.features import FeatureConfig
from speech.model import Architecture, AttentionPooling, CommandModel, load_model, save_model
from tests import tiny

ROOT = Path(__file__).parent.parent
LABELS = ("yes", "no", "unknown")


def small(**changes) -> CommandModel:
    keras.utils.set_random_seed(3)
    architecture = Architecture(conv_filters=(8,), lstm_layers=2, lstm_units=6)
    return CommandModel(LABELS, tiny.FEATURES, dataclasses.replace(architecture, **changes))


def features(n: int = 4, n_frames: int | None = None) -> np.ndarray:
    shape = (n, n_frames or tiny.FEATURES.n_frames, tiny.FEATURES.n_mfcc)
    return np.random.default_rng(0).normal(0, 20, shape).astype(np.float32)


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


def lstm_by_hand(x, kernel, recurrent, bias):
    """Hochreiter and Schmidhuber's memory cell with Gers' forget gate, written from the formula."""
    units = recurrent.shape[0]
    h, c = np.zeros((len(x), units)), np.zeros((len(x), units))
    states = []
    for t in range(x.shape[1]):
        i, f, g, o = np.split(x[:, t] @ kernel + h @ recurrent + bias, 4, axis=1)
        c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
        h = sigmoid(o) * np.tanh(c)
        states.append(h)
    return np.stack(states, axis=1)


def test_the_network_equals_its_formulas_written_in_numpy():
    model = small(conv_filters=(), lstm_layers=1)
    x = features()
    states = []
    layer = model.lstm_layers[0]
    for lstm, step in ((layer.forward_layer, 1), (layer.backward_layer, -1)):
        states.append(lstm_by_hand(x[:, ::step].astype(float), *lstm.get_weights())[:, ::step])
    h = np.concatenate(states, axis=2)
    assert model.pooling is not None
    hidden, score = model.pooling.hidden.get_weights(), model.pooling.score.get_weights()
    energy = np.tanh(h @ hidden[0] + hidden[1]) @ score[0]
    weights = np.exp(energy) / np.exp(energy).sum(axis=1, keepdims=True)
    kernel, bias = model.classifier.get_weights()
    expected = (weights * h).sum(axis=1) @ kernel + bias
    np.testing.assert_allclose(model.predict_on_batch(x), expected, atol=1e-4)


def test_recurrent_kernels_start_orthogonal_and_forget_gates_start_open():
    model = small()
    for layer in model.lstm_layers:
        for lstm in (layer.forward_layer, layer.backward_layer):
            _, recurrent, bias = lstm.get_weights()
            units = recurrent.shape[0]
            np.testing.assert_allclose(recurrent @ recurrent.T, np.eye(units), atol=1e-5)
            np.testing.assert_array_equal(bias, np.repeat([0.0, 1, 0, 0], units))


@pytest.mark.parametrize(
    ("pooling", "bidirectional", "conv_filters"),
    [
        ("attention", True, (4, 8)),
        ("mean", False, ()),
        ("mean", True, (4,)),
        ("attention", False, ()),
    ],
)
def test_every_architecture_maps_clips_of_any_length_to_logits(
    pooling, bidirectional, conv_filters
):
    model = small(pooling=pooling, bidirectional=bidirectional, conv_filters=conv_filters)
    for n_frames in (tiny.FEATURES.n_frames, 31):
        logits = keras.ops.convert_to_numpy(model(features(2, n_frames)))
        assert logits.shape == (2, 3)
        assert np.isfinite(logits).all()
    copy = CommandModel.from_config(json.loads(json.dumps(model.get_config())))
    copy.set_weights(model.get_weights())
    np.testing.assert_array_equal(copy(features()), model(features()))


def test_attention_weights_are_a_distribution_over_time():
    pooling = AttentionPooling(5)
    weights = keras.ops.convert_to_numpy(pooling.weights_over_time(np.ones((2, 9, 4), "float32")))
    np.testing.assert_allclose(weights.sum(axis=1), 1, rtol=1e-5)
    np.testing.assert_allclose(weights, 1 / 9, rtol=1e-5)


def test_a_saved_model_gives_the_same_logits_in_a_new_process(tmp_path):
    model = small()
    model.normalization.adapt(features(8))
    model.temperature, model.decoder = 1.7, {"threshold": 0.6}
    model.provenance = {"seed": 3}
    save_model(model, tmp_path / "model.keras")
    script = (
        "import sys, numpy as np; from pathlib import Path; from speech.model import load_model;"
        "m = load_model(Path(sys.argv[1]));"
        "assert (m.temperature, m.decoder, m.provenance) == (1.7, {'threshold': 0.6}, {'seed': 3});"
        "np.save(sys.argv[3], m.predict_on_batch(np.load(sys.argv[2])))"
    )
    np.save(tmp_path / "x.npy", features())
    paths = [str(tmp_path / name) for name in ("model.keras", "x.npy", "y.npy")]
    subprocess.run([sys.executable, "-c", script, *paths], check=True, cwd=ROOT)
    np.testing.assert_array_equal(np.load(paths[2]), model.predict_on_batch(features()))
    assert [p.name for p in tmp_path.glob("*.keras")] == ["model.keras"], "no temporary file stays"


@pytest.mark.parametrize("backend", ["jax", "torch"])
@pytest.mark.slow
def test_a_model_saved_on_tensorflow_gives_the_same_logits_on_another_backend(tmp_path, backend):
    if find_spec(backend) is None:
        pytest.skip(f"{backend} is not installed")
    model = small()
    model.normalization.adapt(features(8))
    save_model(model, tmp_path / "model.keras")
    np.save(tmp_path / "x.npy", features())
    script = (
        "import sys, numpy as np, keras; from pathlib import Path; from speech.model import *;"
        f"assert keras.backend.backend() == '{backend}';"
        "np.save(sys.argv[3], load_model(Path(sys.argv[1])).predict_on_batch(np.load(sys.argv[2])))"
    )
    paths = [str(tmp_path / name) for name in ("model.keras", "x.npy", "y.npy")]
    environment = os.environ | {"KERAS_BACKEND": backend, "JAX_PLATFORMS": "cpu"}
    subprocess.run([sys.executable, "-c", script, *paths], check=True, cwd=ROOT, env=environment)
    np.testing.assert_allclose(
        np.load(paths[2]), model.predict_on_batch(features()), atol=1e-5, rtol=1e-4
    )


def test_a_config_with_an_unknown_or_a_missing_field_is_refused_by_name():
    config = small().get_config()
    with pytest.raises(ValueError, match=r"unknown: \['loudness'\]"):
        CommandModel.from_config(config | {"loudness": 11})
    del config["temperature"]
    with pytest.raises(ValueError, match=r"missing: \['temperature'\]"):
        CommandModel.from_config(config)
    config = small().get_config()
    del config["features"]["hop_seconds"]
    with pytest.raises(ValueError, match="hop_seconds"):
        CommandModel.from_config(config)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"lstm_units": 10**9}, "units must be integers in"),
        ({"lstm_layers": 0}, r"lstm_layers=0 must be an integer in \[1, 8\]"),
        ({"conv_filters": (8,) * 9}, "must be at most 4 integers"),
        ({"pooling": "last"}, "must be attention or mean"),
        ({"dropout": 1.0}, "dropout=1.0 must lie in"),
    ],
)
def test_an_architecture_out_of_bounds_is_refused(change, reason):
    with pytest.raises(ValueError, match=reason):
        Architecture(**change)


def test_other_files_are_refused_with_what_was_expected(tmp_path):
    missing, text, damaged, foreign = (tmp_path / f"{n}.keras" for n in ("a", "b", "c", "d"))
    text.write_text("<html>not found</html>")
    save_model(small(), damaged)
    damaged.write_bytes(damaged.read_bytes()[:2000])
    keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)]).save(foreign)
    for path, got in (
        (missing, "file not found"),
        (text, "another or a corrupt file"),
        (damaged, "corrupt"),
        (foreign, "a Keras model of class Sequential"),
    ):
        with pytest.raises(
            ModelError, match=f"expected a .keras file made by `speech train`, got .*{got}"
        ):
            load_model(path)


def test_a_file_that_asks_for_a_terabyte_is_refused(tmp_path):
    save_model(small(), tmp_path / "good.keras")
    with zipfile.ZipFile(tmp_path / "good.keras") as good:
        parts = {name: good.read(name) for name in good.namelist()}
    config = json.loads(parts["config.json"])
    config["config"]["architecture"]["lstm_units"] = 10**9
    with zipfile.ZipFile(tmp_path / "bad.keras", "w") as bad:
        for name, content in (parts | {"config.json": json.dumps(config)}).items():
            bad.writestr(name, content)
    with pytest.raises(ModelError, match="units must be integers"):
        load_model(tmp_path / "bad.keras")


def test_the_default_network_stays_below_the_size_that_ships():
    assert CommandModel(("a", "b"), FeatureConfig()).count_params() <= 1_200_000


def test_a_causal_network_says_the_same_of_a_beginning_as_of_the_whole():
    model = small(conv_filters=(8, 12), bidirectional=False, pooling="state", causal=True)
    mfcc = features(2, 101)
    steps = np.asarray(model.steps(mfcc))
    assert steps.shape == (2, 25, len(model.labels))
    for n_steps in (1, 7, 24):
        beginning = mfcc[:, : 4 * n_steps]
        np.testing.assert_allclose(model.steps(beginning), steps[:, :n_steps], atol=1e-6)
        np.testing.assert_allclose(model(beginning), steps[:, n_steps - 1], atol=1e-6)
