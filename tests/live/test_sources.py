"""Files, pipes and microphones as blocks of one kind."""

import io
from collections.abc import Iterator

import numpy as np
import pytest

from speech.audio import JUST_BELOW_ONE, load_audio, read_blocks
from speech.errors import AudioError
from speech.live.microphone import Block
from speech.live.sources import paced, pcm_blocks
from tests import sounds
from tests.e2e.tones import RATE, said


def blocks_of(samples: np.ndarray, rate: int = RATE) -> Iterator[Block]:
    whole = np.round(32767 * samples).astype(np.int16)[:, np.newaxis]
    size = rate // 20
    return (Block(whole[i : i + size], rate) for i in range(0, len(whole), size))


def test_pcm_in_pieces_of_any_size_is_the_same_sound_and_half_a_sample_is_left_out():
    samples = np.random.default_rng(1).integers(-32768, 32767, 5000, np.int16)
    data = samples.astype("<i2").tobytes() + b"\x07"

    class Dribbling(io.BytesIO):
        def read1(self, size: int | None = -1) -> bytes:
            return super().read(1 + self.tell() % 7)

    for stream in (io.BytesIO(data), Dribbling(data)):
        blocks = list(pcm_blocks(stream, 8000))
        assert np.array_equal(np.concatenate([b.samples for b in blocks]), samples)
        assert {b.sample_rate for b in blocks} == {8000}
        assert max(len(b.samples) for b in blocks) <= 400


def test_a_rate_of_no_sound_card_is_refused(refused):
    assert "got 7;" in refused(AudioError, lambda: next(pcm_blocks(io.BytesIO(b"ab"), 7)))


@pytest.mark.parametrize(("kind", "subtype", "_tolerance"), sounds.FORMATS)
def test_a_file_in_blocks_is_the_file_as_a_whole(kind, subtype, _tolerance):
    rate = 48_000
    data = sounds.encode(sounds.tone(3.2, rate), rate, kind, subtype)
    blocks = list(read_blocks(data))
    assert {r for _, r in blocks} == {rate}
    joined = np.clip(np.concatenate([b for b, _ in blocks]), -1, JUST_BELOW_ONE)
    assert np.array_equal(joined, load_audio(data, rate))


def test_a_file_in_blocks_is_refused_as_a_whole_one_is(refused, tmp_path):
    cut = sounds.encode(sounds.tone(1.0, RATE), RATE)[:-100]
    for source in (b"", b"Dear sir or madam", cut, tmp_path, tmp_path / "nothing.wav"):
        said_of_blocks = refused(AudioError, lambda source=source: list(read_blocks(source)))
        assert said_of_blocks == refused(AudioError, lambda source=source: load_audio(source))


def test_a_paced_file_gives_each_block_when_its_last_sample_was_spoken():
    now, slept = [100.0], []

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        now[0] += seconds

    blocks = list(blocks_of(said([], 1.0)))
    times = []
    for number, _ in enumerate(paced(blocks, sleep, lambda: now[0])):
        times.append(now[0] - 100)
        now[0] += 0.3 if number == 5 else 0.01  # a slow network is caught up with
    assert times[:6] == pytest.approx([0.05 * i for i in range(1, 7)])
    assert times[-1] == pytest.approx(1.0)
    assert min(slept) == 0.0
