import re
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
import soundfile

import speech
from speech.architecture import ModelConfig
from speech.errors import AudioError, ModelError
from speech.features import mfcc
from speech.formats.folder import ModelFolder
from speech.model import CommandModel, save_model
from speech.recognizer import Recognizer
from tests import exports, tiny
from tests.hearing import by_loudness

LABELS = ("low", "high", "unknown", "silence")


@pytest.fixture(scope="module")
def model_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models") / "tones"
    keras.utils.set_random_seed(1)
    model = CommandModel(LABELS, tiny.FEATURES, tiny.config().architecture, temperature=2.0)
    save_model(model, folder / "model.keras")
    return folder


@pytest.fixture(scope="module")
def recognizer(model_folder):
    return speech.load(model_folder)


def clips(n: int) -> np.ndarray:
    rng = np.random.default_rng(0)
    return np.stack([tiny.tone(list(tiny.TONES)[i % 4], rng) for i in range(n)])


def test_probabilities_are_the_tempered_softmax_of_the_network_on_librosas_mfcc(
    recognizer, model_folder
):
    x = clips(5)
    model = keras.saving.load_model(model_folder / "model.keras", compile=False)
    logits = keras.ops.convert_to_numpy(model(mfcc(x, tiny.FEATURES))).astype(float) / 2.0
    expected = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    found = recognizer.probabilities(x)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_one_clip_and_a_batch_give_the_same_probabilities(recognizer):
    x = clips(4)
    one_by_one = np.concatenate([recognizer.probabilities(x[i : i + 1]) for i in range(4)])
    np.testing.assert_allclose(recognizer.probabilities(x), one_by_one, atol=1e-6)
    assert recognizer.probabilities(x[:0]).shape == (0, 4)


def test_the_folder_and_the_file_are_the_same_model(recognizer, model_folder):
    by_file = speech.load(model_folder / "model.keras")
    assert by_file.labels == recognizer.labels == LABELS
    assert by_file.features == recognizer.features == tiny.FEATURES
    np.testing.assert_array_equal(
        by_file.probabilities(clips(1)), recognizer.probabilities(clips(1))
    )
    assert recognizer.name == "tones"


def test_a_recording_in_another_rate_and_stereo_gives_the_same_label(recognizer, tmp_path):
    import soxr

    clip = clips(1)[0]
    at_16k = recognizer.recognize((clip, 16_000))
    stereo = np.stack([soxr.resample(clip, 16_000, 44_100)] * 2, axis=1)
    soundfile.write(tmp_path / "clip.wav", stereo, 44_100, subtype="FLOAT")
    from_file = recognizer.recognize(tmp_path / "clip.wav")
    assert from_file.label == at_16k.label
    assert from_file.probability == pytest.approx(at_16k.probability, abs=0.02)
    assert sum(at_16k.probabilities.values()) == pytest.approx(1, abs=1e-5)
    assert max(at_16k.probabilities, key=at_16k.probabilities.get) == at_16k.label


def test_of_a_long_recording_the_loudest_window_is_recognised(recognizer):
    clip = clips(1)[0]
    quiet = np.zeros(16_000, np.float32)
    long = np.concatenate([quiet, clip, quiet])
    # the window may sit a few samples beside the clip, where the same energy lies in it
    assert recognizer.recognize((long, 16_000)).label == recognizer.recognize((clip, 16_000)).label


@pytest.mark.parametrize(
    ("waveforms", "got"),
    [
        (np.zeros(6400, np.float32), r"shape \(6400,\)"),
        (np.zeros((1, 6399), np.float32), r"shape \(1, 6399\)"),
        (np.zeros((1, 6400)), "float64"),
        (np.full((1, 6400), np.nan, np.float32), "not finite"),
    ],
)
def test_waveforms_of_another_shape_or_kind_are_refused(recognizer, waveforms, got):
    with pytest.raises(ModelError, match=rf"expected float32 waveforms \(n, 6400\).*{got}"):
        recognizer.probabilities(waveforms)


def test_what_is_not_audio_raises_an_audio_error(recognizer):
    with pytest.raises(AudioError, match="expected"):
        recognizer.recognize(b"<html>")


def test_a_path_without_a_model_says_how_to_make_one(tmp_path):
    for path in (tmp_path, tmp_path / "nothing.keras"):
        with pytest.raises(ModelError, match="speech train"):
            speech.load(path)


# --- whatever the file ---------------------------------------------------------------------------


@pytest.fixture(scope="module")
def exported_folder(tmp_path_factory):
    return exports.folder(tmp_path_factory.mktemp("models") / "tones", exports.model())


def test_a_folder_with_an_export_answers_without_keras_and_as_keras_does(exported_folder):
    fast = speech.load(exported_folder)
    slow = speech.load(exported_folder / "model.keras")
    assert fast.file == "model.onnx (float32)"
    assert slow.file == "model.keras (float32)"
    assert fast.name == "tones"
    assert (fast.labels, fast.features) == (slow.labels, slow.features)
    assert (fast.decoder, fast.provenance) == (slow.decoder, slow.provenance)
    assert fast.decoder == {"threshold": 0.9}
    x = clips(6)
    np.testing.assert_allclose(fast.probabilities(x), slow.probabilities(x), atol=1e-4)
    np.testing.assert_allclose(fast.mfcc(x), mfcc(x, tiny.FEATURES), atol=1e-3)
    np.testing.assert_array_equal(slow.mfcc(x), mfcc(x, tiny.FEATURES))


def test_no_clips_give_no_rows_whatever_the_file(exported_folder):
    for file in ("model.onnx", "model.keras"):
        recognizer = speech.load(exported_folder / file)
        assert recognizer.probabilities(clips(1)[:0]).shape == (0, 4)
        assert recognizer.mfcc(clips(1)[:0]).shape == (0, tiny.FEATURES.n_frames, 13)


def test_the_mfcc_want_the_same_waveforms_as_the_probabilities(exported_folder):
    recognizer = speech.load(exported_folder)
    for wrong in (np.zeros((1, 6399), np.float32), np.full((1, 6400), np.inf, np.float32)):
        with pytest.raises(ModelError, match="expected float32 waveforms"):
            recognizer.mfcc(wrong)


def test_an_export_of_another_model_is_refused_in_a_folder_but_not_by_its_own_name(
    exported_folder, tmp_path, refused
):
    folder = tmp_path / "trained-again"
    save_model(CommandModel(LABELS, tiny.FEATURES), folder / "model.keras")
    stale = folder / "model.onnx"
    stale.write_bytes((exported_folder / "model.onnx").read_bytes())
    message = refused(ModelError, lambda: speech.load(folder))
    assert message.startswith(f"{stale}: expected the export of the model.keras beside it")
    assert f"speech export {folder}" in message
    assert speech.load(stale).labels == LABELS
    (folder / "model.keras").unlink()
    assert speech.load(folder).labels == LABELS


def test_a_damaged_export_is_not_passed_over_for_the_keras_file(exported_folder, tmp_path, refused):
    for file in exported_folder.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    (tmp_path / "model.onnx").write_bytes(b"damaged")
    refused(ModelError, lambda: speech.load(tmp_path))


def test_a_file_of_another_kind_is_refused(tmp_path, refused):
    path = tmp_path / "model.pkl"
    path.write_bytes(b"anything")
    message = refused(ModelError, lambda: speech.load(path))
    assert ".onnx, .tflite, .keras" in message
    assert "got another file" in message


def test_more_threads_give_the_same_answers(exported_folder):
    x = clips(3)
    one, two = (speech.load(exported_folder, threads=n) for n in (1, 2))
    np.testing.assert_allclose(one.probabilities(x), two.probabilities(x), atol=1e-6)


@pytest.mark.parametrize("suffix", [".onnx", ".tflite"])
def test_threads_may_ask_a_recognizer_at_once(tmp_path, suffix):
    from concurrent.futures import ThreadPoolExecutor

    path = exports.write_described(exports.model(), tmp_path / f"model{suffix}")
    recognizer = speech.load(path)
    x = clips(32)
    expected = recognizer.probabilities(x)
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(recognizer.probabilities, np.split(x, len(x))))
    np.testing.assert_allclose(np.concatenate(found), expected, atol=1e-6)


def test_samples_need_their_rate_and_nothing_else_has_one(tmp_path):
    recognizer = by_loudness()
    loud = np.full(44_100, 0.2)
    assert recognizer.recognize(loud, 44_100) == recognizer.recognize((loud, 44_100))
    assert recognizer.recognize(loud, sample_rate=44_100).label == "yes"
    for given in ((loud,), ((loud, 44_100), 16_000), ("a.wav", 16_000)):
        with pytest.raises(ValueError, match="sample_rate beside an array"):
            recognizer.recognize(*given)


def test_many_are_recognized_as_each_alone_in_few_calls_and_read_when_their_turn_comes():
    rng = np.random.default_rng(1)
    sounds = [(rng.uniform(-v, v, 8_000), 16_000) for v in rng.uniform(0, 0.5, 70)]
    heard: list = []
    recognizer = by_loudness(heard)
    alone = [recognizer.recognize(sound) for sound in sounds]
    read = []

    def one_by_one():
        for number, sound in enumerate(sounds):
            read.append(number)
            yield sound

    predictions = speech.recognize_many(one_by_one(), recognizer)
    assert next(predictions) == alone[0]
    assert len(read) == 32
    assert list(predictions) == alone[1:]


def test_of_many_those_before_a_bad_one_are_answered():
    sounds = [(np.full(100, 0.2), 16_000)] * 3
    predictions = by_loudness().recognize_many([*sounds, "nothing.wav", *sounds])
    assert [next(predictions).label for _ in sounds] == ["no"] * 3
    with pytest.raises(AudioError, match=r"nothing\.wav"):
        next(predictions)


def test_recognizing_with_onnx_imports_neither_what_made_the_file_nor_what_trained_it():
    program = (
        "import numpy as np, speech, sys;"
        "speech.load().recognize((np.zeros(16_000, np.float32), 16_000));"
        "heavy = {'onnx', 'h5py', 'keras', 'tensorflow', 'librosa', 'numba', 'scipy', 'gradio'};"
        "print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("[]\n", "")


# --- acceptance ----------------------------------------------------------------------------------


def answering(row: list[float], acceptance: dict[str, float]) -> Recognizer:
    return Recognizer(
        "fixed",
        ModelConfig(labels=LABELS, features=tiny.FEATURES, acceptance=acceptance),
        lambda waveforms: np.tile(np.array(row, np.float32), (len(waveforms), 1)),
    )


@pytest.mark.parametrize(
    ("row", "acceptance", "label", "answer", "text"),
    [
        ([0.6, 0.2, 0.1, 0.1], {}, "low", "low", "low (60 %)"),
        ([0.6, 0.2, 0.1, 0.1], {"low": 0.6 - 1e-6}, "low", "low", "low (60 %)"),
        ([0.6, 0.2, 0.1, 0.1], {"low": 0.7}, "low", "unknown", "unknown (perhaps low, 60 %)"),
        ([0.6, 0.2, 0.1, 0.1], {"high": 0.7}, "low", "low", "low (60 %)"),
        ([0.1, 0.2, 0.6, 0.1], {"low": 0.9}, "unknown", "unknown", "unknown (60 %)"),
        ([0.1, 0.2, 0.1, 0.6], {"low": 0.9}, "silence", "silence", "silence (60 %)"),
    ],
)
def test_a_command_below_its_threshold_is_answered_by_unknown(row, acceptance, label, answer, text):
    prediction = answering(row, acceptance).recognize_waveform(np.zeros(6400, np.float32))
    assert prediction.label == label
    assert prediction.answer == answer
    assert prediction.accepted == (label == answer)
    assert str(prediction) == text
    assert prediction.probability == pytest.approx(0.6)


def test_acceptance_thresholds_travel_in_the_file(exported_folder):
    for file in ("model.onnx", "model.keras"):
        assert speech.load(exported_folder / file).acceptance == {"low": 0.4}


def test_objects_say_what_they_are(exported_folder):
    recognizer = speech.load(exported_folder)
    for part in ("tones", "model.onnx", "low", "high"):
        assert part in repr(recognizer)
    prediction = recognizer.recognize_waveform(np.zeros(6400, np.float32))
    assert prediction.label in repr(prediction)
    assert len(repr(prediction)) < 120


# --- the folder of a model -----------------------------------------------------------------------


def test_a_folder_answers_by_onnx_before_litert_before_keras(tmp_path):
    folder = ModelFolder(tmp_path)
    assert folder.preferred is None
    assert folder.model_files == []
    for name in ("model.keras", "model.tflite", "model.onnx"):
        (tmp_path / name).touch()
        assert folder.preferred == tmp_path / name
    (tmp_path / "model-int8.onnx").touch()
    (tmp_path / "model.txt").touch()
    names = ["model-int8.onnx", "model.keras", "model.onnx", "model.tflite"]
    assert [path.name for path in folder.model_files] == names
    assert ModelFolder.around(tmp_path / "model.keras") == ModelFolder.around(tmp_path) == folder


def test_the_files_of_a_folder_are_named_in_one_place():
    """But for what an export is called, and the variants that a benchmark compares."""
    names = "model.keras|metrics.json|clips.csv|stream.json|tuning.json|history.json|checkpoint.npz"
    literal = re.compile(rf'"(?:{names})"'.replace(".", r"\."))
    package = Path(speech.__file__).parent
    found = {
        path.relative_to(package).as_posix()
        for path in package.rglob("*.py")
        if literal.search(path.read_text("utf-8"))
    }
    assert found == {"formats/folder.py", "evaluation/benchmark.py"}
