"""A recording in pieces: whoever takes which, the detections are those of one machine."""

from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st

from speech.audio import read_blocks, resample
from speech.cluster.division import Joiner, PieceDecoder, divide
from speech.detection import DecoderConfig, Detection, PosteriorDecoder
from speech.features import FeatureConfig
from speech.live.scan import BATCH, scan_file
from speech.recognizer import Recognizer, load
from speech.stream import chosen_for
from tests.conftest import PROJECT

WORDS = PROJECT / "speech/web/static/examples/seven_words.flac"


@pytest.fixture(scope="module")
def model() -> Recognizer:
    return load()


def spoken(path: Path, seconds: float, rate: int, *, gap: float, seed: int = 0) -> Path:
    """A recording of seven words over and over, louder and softer, in noise."""
    words, own = soundfile.read(WORDS, dtype="float32")
    words = resample(words, own, rate)
    rng = np.random.default_rng(seed)
    pause = np.zeros(round(gap * rate), np.float32)
    n = int(seconds * rate / (len(words) + len(pause))) + 1
    sound = np.concatenate([x for _ in range(n) for x in (words * rng.uniform(0.3, 1), pause)])
    sound = sound[: round(seconds * rate)]
    noise = rng.normal(0, 0.002, len(sound)).astype(np.float32)
    noise[len(noise) // 3 : len(noise) // 2] = 0  # digital silence asks no network
    soundfile.write(path, (sound + noise) * (noise != 0), rate, subtype="PCM_16")
    return path


def in_pieces(model: Recognizer, path: Path, batches: int) -> tuple[int, tuple[Detection, ...]]:
    """The number of pieces, and what workers that know nothing of each other find in them."""
    config = chosen_for(model)
    joiner = Joiner(model, config)
    pieces = list(divide(read_blocks(path), model.features, config.step_seconds, batches))
    decoder = PieceDecoder(model, config)
    # in any order: nothing is carried over from one piece to the next
    answers = {piece.first: decoder(piece) for piece in reversed(pieces)}
    found = [joiner.add(answers[piece.first]) for piece in pieces]
    assert found[:-1] == [None] * (len(pieces) - 1)
    assert found[-1] is not None
    return len(pieces), found[-1]


@pytest.mark.parametrize(("rate", "gap"), [(16_000, 2.0), (44_100, 0.0)])
def test_the_detections_are_those_of_one_machine_to_the_last_bit(model, tmp_path, rate, gap):
    path = spoken(tmp_path / "long.wav", 130.0, rate, gap=gap)
    whole = scan_file(model, path).detections
    assert len(whole) > 20
    for batches, n in ((100, 1), (3, 2), (1, 6)):
        assert in_pieces(model, path, batches) == (n, whole)


@pytest.mark.campaign
def test_three_hours_in_1_7_and_40_pieces(model, tmp_path):
    path = spoken(tmp_path / "long.flac", 3 * 3600.0, 16_000, gap=5.0)
    whole = scan_file(model, path).detections
    assert len(whole) > 2000
    steps = 3 * 36_000 / BATCH
    for n in (1, 7, 40):
        batches = int(np.ceil(steps / n))
        assert in_pieces(model, path, batches) == (int(np.ceil(steps / batches)), whole)


@given(st.data())
@settings(max_examples=200)
def test_from_a_calm_place_on_no_past_matters(data):
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
    labels = ("yes", "no", "unknown", "silence")
    config = DecoderConfig(
        refractory_seconds=data.draw(st.sampled_from([0.0, 0.7, 2.0])),
        min_consecutive_windows=data.draw(st.integers(1, 4)),
    )

    def decoder() -> PosteriorDecoder:
        return PosteriorDecoder(config, labels, FeatureConfig(), np.full(4, 0.25))

    # words and pauses of all lengths
    sure = np.repeat(rng.integers(0, 4, 80), rng.integers(1, 15, 80))
    rows = np.full((len(sure), 4), 0.02)
    rows[np.arange(len(sure)), sure] = 0.94
    cut = data.draw(st.integers(1, len(rows) - 1))
    past, part = decoder(), decoder()
    before = past.decode(rows[:cut])
    whole = before + past.decode(rows[cut:])
    begin = part.begin_at_calm(rows[cut:], cut)
    if cut + begin < len(rows):
        found = part.decode(rows[cut + begin :])
        joined = decoder()
        assert joined.decode(rows[: cut + begin]) + found == whole
        joined.state = part.state
        assert joined.decode(rows) == past.decode(rows)


def test_a_piece_without_a_calm_place_leaves_all_to_the_one_who_joins(model, tmp_path):
    path = spoken(tmp_path / "dense.wav", 60.0, 16_000, gap=0.0)
    config = chosen_for(model).with_thresholds(0.02)  # somebody always reaches it
    whole = scan_file(model, path, config).detections
    decoder, joiner = PieceDecoder(model, config), Joiner(model, config)
    pieces = divide(read_blocks(path), model.features, config.step_seconds, 1)
    answers = [decoder(piece) for piece in pieces]
    assert any(answer.state is None for answer in answers)
    assert [joiner.add(answer) for answer in answers][-1] == whole
