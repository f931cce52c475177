"""The head against another optimizer, thresholds against streams with a known rate, the bank."""

import numpy as np
import pytest
from scipy import optimize, special

from speech.detection import DecoderConfig
from speech.errors import TeachError
from speech.features import FeatureConfig
from speech.formats.weights import WordBranch
from speech.installation import find_model
from speech.teach import thresholds
from speech.teach.bank import FILE, Bank
from speech.teach.encoder import side_by_side
from speech.teach.head import fit, softmax
from speech.teach.quality import Quality, WordQuality
from speech.teach.takes import TakeFault

SHIPPED = find_model("commands-8") / FILE


def test_the_head_is_the_optimum_that_scipy_finds():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(60, 5)).astype(np.float32)
    truth = rng.integers(0, 3, 60)
    weights = rng.uniform(0.2, 2, 60).astype(np.float32)

    def loss(theta: np.ndarray) -> float:
        kernel, bias = theta[:15].reshape(5, 3), theta[15:]
        log = special.log_softmax(x @ kernel + bias, axis=1)
        penalty = 0.5 * 0.7 * np.sum(kernel**2) + 0.5e-3 * np.sum(bias**2)
        return float(-np.sum(weights * log[np.arange(60), truth]) + penalty)

    best = optimize.minimize(loss, np.zeros(18)).x
    kernel, bias = fit(x, truth, weights, 3, strength=0.7)
    assert loss(np.concatenate([kernel.ravel(), bias])) == pytest.approx(loss(best), rel=1e-4)
    expected = special.softmax(x @ best[:15].reshape(5, 3) + best[15:], axis=1)
    np.testing.assert_allclose(softmax(x @ kernel + bias), expected, atol=5e-3)


def streams(n: int, seed: int, scale: float = 1.5) -> list[np.ndarray]:
    """An hour in which something like a word comes a few hundred times, with random odds."""
    rng = np.random.default_rng(seed)
    rows = np.full((36_000, n), 1e-6)
    for word in range(n):
        for start in rng.choice(36_000 // 60, 300, replace=False) * 60:
            height = special.expit(rng.exponential(scale) - 4)
            rows[start + 7 * word : start + 7 * word + 5, word] = height
    return [rows]


@pytest.mark.parametrize("rate", [0.5, 5.0, 30.0])
def test_the_wanted_rate_is_met_on_other_streams_of_the_same_kind(rate):
    config = DecoderConfig(smoothing_seconds=0.2, min_consecutive_windows=2, release_threshold=0.0)
    words = thresholds.Words(2, ("a", "b", "unknown", "silence"), FeatureConfig())
    counts = []
    for seed in range(6):
        chosen = thresholds.choose(streams(2, seed), config, rate, 1.0)
        counts.append(sum(thresholds.count(streams(2, 100 + seed), chosen, config, words)))
    assert 0.3 * 2 * rate - 1 <= np.mean(counts) <= 2.5 * 2 * rate + 1


def test_a_peak_is_the_highest_threshold_at_which_the_decoder_detects():
    config = DecoderConfig(smoothing_seconds=0.2, min_consecutive_windows=2, release_threshold=0.0)
    words = thresholds.Words(1, ("a", "unknown"), FeatureConfig())
    rows = np.zeros((100, 1))
    rows[40:45, 0] = (0.2, 0.6, 0.9, 0.5, 0.1)
    (height,) = thresholds.peaks(rows, config).max(axis=0)
    assert thresholds.count([rows], [height - 1e-9], config, words) == [1]
    assert thresholds.count([rows], [height + 1e-9], config, words) == [0]


def test_the_shipped_bank_is_small_and_holds_more_than_an_hour_out():
    assert SHIPPED.stat().st_size <= 2_000_000
    bank = Bank.read(SHIPPED)
    assert bank.hours >= 1.0
    width = len(bank.branch.bias)
    for stream in (*bank.training[:5], *bank.held_out[:5]):
        assert stream.dtype == np.float32
        np.testing.assert_allclose(np.mean(stream**2, axis=1), 1, atol=1e-3)
        assert stream.shape[1] == width
    assert sum(map(len, bank.training)) >= 3_000


def test_a_bank_comes_back_but_for_the_rounding(tmp_path):
    rng = np.random.default_rng(0)

    def stream(n: int) -> np.ndarray:
        rows = np.cumsum(rng.normal(size=(n, 12)), axis=0)
        return (rows / np.sqrt(np.mean(rows**2, axis=1, keepdims=True))).astype(np.float32)

    kernel = rng.normal(size=(32, 12)).astype(np.float32)
    branch = WordBranch(np.full((3, 8), 1 / 8, np.float32), kernel, np.zeros(12, np.float32))
    bank = Bank(branch, (stream(5), stream(1)), (stream(60), stream(41)))
    path = tmp_path / FILE
    bank.write(path)
    found = Bank.read(path)
    np.testing.assert_allclose(found.branch.kernel, kernel, atol=np.abs(kernel).max() / 250)
    for one, other in zip(found.training, bank.training, strict=True):
        assert one.shape == other.shape
        assert np.mean(np.sum(one * other, axis=1)) > 0.9 * 12
    for one, other in zip(found.held_out, bank.held_out, strict=True):
        assert len(other) - 1 <= len(one) <= len(other)
        np.testing.assert_allclose(np.mean(one**2, axis=1), 1, atol=1e-3)
    assert path.read_bytes()
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(TeachError, match="expected the bank"):
        Bank.read(path)


def test_vectors_stand_side_by_side_as_the_seconds_of_a_longer_clip():
    stream = np.arange(12, dtype=np.float32)[:, np.newaxis]
    np.testing.assert_array_equal(side_by_side(stream, (0, 5, 10)), [[0, 5, 10], [1, 6, 11]])
    assert side_by_side(stream[:3], (0, 5)).shape == (0, 2)
    np.testing.assert_array_equal(side_by_side(stream[:3], (0, 5), 5), [[0, 1], [1, 2]])


def test_the_sentences_say_what_to_do():
    words = {
        "light": WordQuality(4, 2, {"right": 2}, 0.5, 0),
        "right": WordQuality(4, 3, {"light": 1}, 0.5, 4),
        "lamp": WordQuality(4, 1, {}, 0.5, 0),
    }
    quality = Quality(
        words, 1.2, 1.0, 4, (3.3, 0.9, 8.5), {1: 0.5, 3: 0.8},
        {"lamp": (TakeFault(2, "clipped", "record it again, softer"),)},
    )  # fmt: skip
    text = quality.sentences()
    assert "'light' and 'right' are confused in 3 of 8: choose another word or record more." in text
    assert "Take 3 of 'lamp' is clipped: record it again, softer." in text
    assert any("'lamp' is missed in 3 of 4" in sentence for sentence in text)
    assert any("15.0 points" in sentence for sentence in text)
    assert any("Most of these were 'right'" in sentence for sentence in text)
    assert Quality.from_dict(quality.to_dict()) == quality
