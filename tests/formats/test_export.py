import dataclasses
import os
from collections.abc import Callable
from pathlib import Path

import keras
import numpy as np
import pytest
from numpy.lib.stride_tricks import sliding_window_view

from speech import child
from speech.data.corpus import index_corpus
from speech.data.evaluation_set import evaluation_set
from speech.errors import ModelError
from speech.features import FeatureConfig, mfcc
from speech.files import sha256
from speech.formats import export
from speech.formats.backends import Runnable, open_model
from speech.formats.export import FORMATS, Comparison, synthetic_clips, validation_clips
from speech.formats.metadata import WINDOW_HOPS, read
from speech.formats.weights import FrontEnd
from speech.model import Architecture, CommandModel, save_model
from tests import exports, tiny

ROOT = Path(__file__).parents[2]
SHIPPED = ROOT / "saved_models" / "commands-8"

SHAPES = {
    "no convolution": Architecture((), 1, 8),
    "an odd number of steps": Architecture((8, 8, 8), 1, 8),
    "two layers": Architecture((8,), 2, 8),
    "one direction": Architecture((8,), 2, 8, bidirectional=False),
    "the mean": Architecture((8,), 1, 8, pooling="mean"),
    "the mean of one direction": Architecture((), 1, 8, bidirectional=False, pooling="mean"),
}
FRONT_ENDS = {
    "the default": FeatureConfig(),
    "window and hop that share 80 samples": FeatureConfig(window_seconds=0.025),
    "window and hop that share one sample": FeatureConfig(
        clip_seconds=0.5, window_seconds=401 / 16_000, n_mels=40, n_mfcc=13
    ),
    "samples behind the last frame": FeatureConfig(clip_seconds=0.507),
    "all bins, DC and Nyquist among them": FeatureConfig(n_mels=40, fmin=0.0, fmax=8_000.0),
    "8 kHz and a low floor": FeatureConfig(
        sample_rate=8_000, window_seconds=0.064, hop_seconds=0.016, fmax=4_000.0, log_floor=1e-10
    ),
    "four frames": FeatureConfig(clip_seconds=0.06),
}


def clips(features: FeatureConfig, n: int = 25) -> np.ndarray:
    return synthetic_clips(features, n)


def keras_probabilities(model: CommandModel, x: np.ndarray) -> np.ndarray:
    logits = model.predict_on_batch(mfcc(x, model.features)) / model.temperature
    return np.asarray(keras.ops.softmax(logits))


def assert_the_same(made: Runnable, model: CommandModel, decibels: float) -> None:
    x = clips(model.features)
    np.testing.assert_allclose(made.mfcc(x), mfcc(x, model.features), atol=decibels, rtol=0)
    np.testing.assert_allclose(made.infer(x), keras_probabilities(model, x), atol=1e-4, rtol=0)
    assert made.infer(x).dtype == made.mfcc(x).dtype == np.float32
    assert made.config.labels == model.labels
    assert made.config.features == model.features


@pytest.mark.parametrize("architecture", SHAPES.values(), ids=SHAPES)
def test_onnx_answers_as_keras_does_whatever_the_shape_of_the_network(architecture, tmp_path):
    model = exports.model(architecture)
    made = open_model(exports.write_described(model, tmp_path / "model.onnx"))
    assert_the_same(made, model, 1e-3)
    assert made.config.decoder == {"threshold": 0.9}
    assert made.config.provenance == {"seed": 7}


@pytest.mark.parametrize("features", FRONT_ENDS.values(), ids=FRONT_ENDS)
def test_the_front_end_in_the_graph_is_librosas_whatever_the_features(features, tmp_path):
    model = exports.model(features=features)
    made = open_model(exports.write_described(model, tmp_path / "model.onnx"))
    assert_the_same(made, model, 1e-3)


@pytest.mark.parametrize(
    "architecture",
    [SHAPES["two layers"], pytest.param(SHAPES["the mean"], marks=pytest.mark.slow)],
    ids=["two layers", "the mean"],
)
def test_litert_answers_as_keras_does(architecture, tmp_path):
    model = exports.model(architecture)
    made = open_model(exports.write_described(model, tmp_path / "model.tflite"))
    assert_the_same(made, model, 1e-2)


@pytest.mark.parametrize("name", ["model.tflite", "model-float16.tflite", "model-int8.tflite"])
def test_the_fft_of_litert_gives_the_mfcc_of_librosa(name, tmp_path):
    features = FeatureConfig(window_seconds=0.032, n_mels=42, n_mfcc=20, fmin=0.0, fmax=8_000.0)
    model = exports.model(features=features)
    made = open_model(exports.write_described(model, tmp_path / name))
    x = clips(features)
    np.testing.assert_allclose(made.mfcc(x), mfcc(x, features), atol=1e-2, rtol=0)


@pytest.mark.parametrize(
    "kind", ["onnx-int8", *(pytest.param(k, marks=pytest.mark.slow) for k in FORMATS if "-" in k)]
)
def test_a_quantized_file_is_smaller_and_its_front_end_is_not_quantized(kind, tmp_path):
    features = FeatureConfig()
    model = exports.model(Architecture((32,), 1, 64), features)
    target = tmp_path / FORMATS[kind].file
    whole = exports.write_described(model, tmp_path / f"whole{target.suffix}")
    made = open_model(exports.write_described(model, target, precision=FORMATS[kind].precision))
    assert made.precision == FORMATS[kind].precision
    assert target.stat().st_size < 0.85 * whole.stat().st_size
    x = clips(features)
    np.testing.assert_allclose(made.mfcc(x), mfcc(x, features), atol=1e-2, rtol=0)
    assert 1e-6 < np.abs(made.infer(x) - keras_probabilities(model, x)).max() < 0.1


def test_a_clip_is_answered_the_same_alone_and_in_company_even_in_eight_bits(tmp_path):
    model = exports.model()
    made = open_model(
        exports.write_described(model, tmp_path / "model-int8.onnx", precision="int8")
    )
    x = clips(model.features)
    np.testing.assert_array_equal(made.infer(x)[3:4], made.infer(x[3:4]))


def test_the_onnx_file_takes_batches_of_any_size_in_one_run(tmp_path):
    import onnxruntime

    model = exports.model()
    session = onnxruntime.InferenceSession(exports.write(model, tmp_path / "model.onnx"))
    x = clips(model.features)
    for n in (1, 2, len(x)):
        (found,) = session.run(["probabilities"], {"waveform": x[:n]})
        np.testing.assert_allclose(found, keras_probabilities(model, x[:n]), atol=1e-4)


@pytest.mark.parametrize("features", FRONT_ENDS.values(), ids=FRONT_ENDS)
def test_the_onnx_file_answers_for_every_window_of_longer_audio(features, tmp_path):
    model = exports.model(features=features)
    made = open_model(exports.write_described(model, tmp_path / "model.onnx"))
    assert made.windows is not None
    step = WINDOW_HOPS * features.hop_length
    long = np.concatenate(list(clips(features, 12)))
    for n in (0, 1, step - 1, step, len(long) - features.n_samples):
        audio = long[: features.n_samples + n]
        every = sliding_window_view(audio, features.n_samples)[::step]
        assert len(made.windows(audio)) == len(every)
        np.testing.assert_allclose(made.windows(audio), made.infer(every), atol=2e-6, rtol=0)


def test_the_clips_of_a_batch_are_divided_among_threads_without_a_difference(tmp_path):
    path = exports.write_described(exports.model(), tmp_path / "model.onnx")
    x = clips(tiny.FEATURES, 50)
    one, three = (open_model(path, threads) for threads in (1, 3))
    np.testing.assert_array_equal(one.infer(x), three.infer(x))
    np.testing.assert_array_equal(one.mfcc(x), three.mfcc(x))


def test_the_two_steps_of_the_dft_hold_every_bin_once():
    features = FeatureConfig(fmin=0.0, fmax=8_000.0)
    front = FrontEnd.from_features(features)
    n_inner, _, n_outer = front.dft_outer.shape
    assert n_inner * n_outer == features.n_fft
    used = np.count_nonzero(front.mel.any(axis=0))
    assert 0 <= features.n_fft // 2 + 1 - used <= 2, "DC and Nyquist may lie in no band"


# --- the shipped model, on a thousand clips each ------------------------------------------------


def assert_onnx_is_keras(x: np.ndarray) -> None:
    made, expected = open_model(SHIPPED / "model.onnx"), open_model(SHIPPED / "model.keras")
    for start in range(0, len(x), 100):
        batch = x[start : start + 100]
        np.testing.assert_allclose(made.mfcc(batch), expected.mfcc(batch), atol=1e-3, rtol=0)
        found, right = made.infer(batch), expected.infer(batch)
        np.testing.assert_allclose(found, right, atol=1e-4, rtol=0)
        np.testing.assert_array_equal(found.argmax(axis=1), right.argmax(axis=1))


def test_the_shipped_onnx_hears_a_thousand_strange_clips_as_librosa_and_keras_do():
    x = synthetic_clips(FeatureConfig(), 1000, seed=1)
    assert {0.0, 0.5} <= {float(np.abs(clip).max()) for clip in x}, "silence and DC"
    assert np.count_nonzero(np.abs(x).max(axis=1) == 1) > 50, "clipped"
    assert_onnx_is_keras(x)


def test_the_shipped_onnx_hears_a_thousand_real_clips_as_librosa_and_keras_do(speech_commands):
    from speech.audio import fit_length, load_audio

    paths = [clip.path for clip in index_corpus(speech_commands).clips]
    chosen = np.random.default_rng(0).choice(paths, 1000, replace=False)
    waveforms = [fit_length(load_audio(speech_commands / path), 16_000) for path in chosen]
    assert_onnx_is_keras(np.stack(waveforms))


def test_the_shipped_onnx_is_that_of_the_shipped_keras_file():
    metadata, _ = read(SHIPPED / "model.onnx")
    assert metadata.keras_sha256 == sha256(SHIPPED / "model.keras")


# --- export(): a child makes the file, the parent decides ---------------------------------------


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models") / "tones"
    save_model(exports.model(), folder / "model.keras")
    return folder


@pytest.fixture(scope="module")
def exported(trained, tmp_path_factory):
    recordings = tiny.recordings(tmp_path_factory.mktemp("corpus"))
    found = validation_clips(recordings, exports.LABELS)
    return export.export(trained, clips=found)


def test_the_file_is_compared_on_speech_and_on_synthetic_clips_before_it_has_its_name(
    exported, trained
):
    assert exported.path == trained / "model.onnx"
    assert exported.size == exported.path.stat().st_size
    speech, synthetic = exported.comparisons
    assert (speech.clips, synthetic.clips) == ("validation", "synthetic")
    assert speech.accuracy == speech.accuracy_before
    assert speech.accuracy is not None
    assert synthetic.accuracy is None
    for each in exported.comparisons:
        assert each.moved == 0
        assert each.mfcc < 1e-3
        assert each.probability < 1e-4


def test_the_file_says_what_keras_knew_and_from_which_file_it_was_made(exported, trained):
    metadata, _ = read(exported.path)
    assert metadata.labels == exports.LABELS
    assert metadata.features == tiny.FEATURES
    assert metadata.temperature == 2.0
    assert metadata.decoder == {"threshold": 0.9}
    assert metadata.provenance == {"seed": 7}
    assert metadata.precision == "float32"
    assert metadata.keras_sha256 == sha256(trained / "model.keras")


def test_the_validation_clips_are_those_of_the_evaluation(tmp_path):
    recordings = tiny.recordings(tmp_path)
    found = validation_clips(recordings, exports.LABELS)
    assert found.names == evaluation_set(recordings, tiny.LABELS).names
    with pytest.raises(ModelError, match="without validation clips"):
        validation_clips(recordings, ("unknown", "low", "high"))


def child_that(comparisons: tuple[Comparison, ...]) -> Callable[..., tuple[Comparison, ...]]:
    """In place of ``child.call``: half a file, and this report."""

    def call(_: object, trained: Path, kind: str, part: Path, *rest: object, **named: object):
        part.write_bytes(b"half")
        return comparisons

    return call


def test_a_file_with_other_answers_is_refused_with_the_figures_and_the_old_one_stays(
    trained, exported, monkeypatch, refused
):
    before = exported.path.read_bytes()
    other = dataclasses.replace(exported.comparisons[0], probability=0.25, moved=8)
    monkeypatch.setattr(child, "call", child_that((other,)))
    message = refused(ModelError, lambda: export.export(trained))
    assert "probability 0.25 (at most 0.0001)" in message
    assert "share of labels moved" in message
    assert exported.path.read_bytes() == before
    assert sorted(p.name for p in trained.iterdir()) == ["model.keras", "model.onnx"]


GOOD = Comparison("validation", 1000, 1e-4, 1e-6, 0, 0.96, 0.96)
STRANGE = Comparison("synthetic", 1000, 1e-4, 1e-6, 0)


@pytest.mark.parametrize(
    ("kind", "changes", "complaint"),
    [
        ("onnx", {}, ""),
        ("onnx", {"mfcc": 2e-3}, "MFCC 0.002"),
        ("onnx", {"probability": 2e-4}, "probability 0.0002"),
        ("onnx", {"moved": 1}, "labels moved 0.001"),
        ("onnx", {"probability": float("nan")}, "probability nan"),
        ("tflite", {"mfcc": 2e-3}, ""),
        ("tflite", {"mfcc": 2e-2}, "MFCC 0.02"),
        ("onnx-int8", {"mfcc": 5e-3, "probability": 0.1, "moved": 5, "accuracy": 0.9571}, ""),
        ("onnx-int8", {"moved": 6}, "labels moved 0.006 (at most 0.005)"),
        ("tflite-float16", {"accuracy": 0.9569}, "loss of accuracy 0.0031 (at most 0.003)"),
        ("tflite-int8", {"accuracy": float("nan")}, "loss of accuracy nan"),
    ],
)
def test_what_may_differ_is_rounding_or_if_quantized_three_tenths_of_a_point(
    kind, changes, complaint
):
    found = [dataclasses.replace(GOOD, **changes), STRANGE]
    if complaint:
        with pytest.raises(ModelError) as caught:
            export._refuse_other_answers(Path("x.onnx"), FORMATS[kind], found)
        assert complaint in str(caught.value)
    else:
        export._refuse_other_answers(Path("x.onnx"), FORMATS[kind], found)


def crash(*_: object) -> None:
    """In place of the converter, in the child."""
    os.abort()


def test_a_converter_that_crashes_takes_no_more_than_its_file_along(
    trained, tmp_path, monkeypatch, refused
):
    monkeypatch.setattr(export, "_convert", crash)
    message = refused(ModelError, lambda: export.export(trained, out=tmp_path))
    assert "exit status -6" in message
    assert not list(tmp_path.iterdir())


def test_what_is_no_model_is_refused_by_its_own_message(tmp_path, refused):
    message = refused(ModelError, lambda: export.export(tmp_path))
    assert "speech train" in message
    (tmp_path / "model.keras").write_bytes(b"no archive")
    with pytest.raises(ModelError, match=r"model\.keras: expected a \.keras file made by"):
        export.export(tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["model.keras"]
    assert "onnx-int8" in refused(ModelError, lambda: export.export(tmp_path, "pickle"))


def test_without_the_packages_that_convert_the_message_says_how_to_get_them(
    trained, monkeypatch, refused
):
    monkeypatch.setattr(export, "find_spec", lambda name: None if name == "onnx" else object())
    assert export.missing_packages("onnx") == ("onnx",)
    message = refused(ModelError, lambda: export.export(trained))
    assert "pip install -e '.[train,export]'" in message


def test_synthetic_clips_are_the_same_for_everybody_and_unlike_each_other():
    x = synthetic_clips(tiny.FEATURES, 50)
    np.testing.assert_array_equal(x, synthetic_clips(tiny.FEATURES, 50))
    assert x.dtype == np.float32
    assert np.abs(x).max() == 1
    assert len(np.unique(x.round(4), axis=0)) == len(x)
