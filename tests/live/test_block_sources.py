"""Files, pipes and microphones as blocks of one kind."""

from collections.abc import Iterator

import numpy as np
import pytest

from speech.audio import JUST_BELOW_ONE, load_audio, read_blocks
from speech.errors import AudioError
from speech.live.microphone import Block
from speech.live.sources import paced, pick_channel
from tests import sounds
from tests.e2e.tones import RATE, said


def blocks_of(samples: np.ndarray, rate: int = RATE) -> Iterator[Block]:
    whole = np.round(32767 * samples).astype(np.int16)[:, np.newaxis]
    size = rate // 20
    return (Block(whole[i : i + size], rate) for i in range(0, len(whole), size))


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


# --- channels ------------------------------------------------------------------------------------


def split(samples: np.ndarray, rate: int = RATE) -> list[Block]:
    whole = np.round(32767 * samples).astype(np.int16)
    return [Block(whole[i : i + rate // 20], rate) for i in range(0, len(whole), rate // 20)]


WORDS = said([(second, "low") for second in range(1, 8, 2)], 9.0)


def test_one_channel_is_that_of_each_block_and_events_pass():
    both = np.stack([WORDS, 0.5 * WORDS], axis=1)
    lost = Block(np.zeros((0, 1), np.int16), RATE, "lost", "it was lost")
    found = list(pick_channel([*split(both), lost], 2))
    assert found[-1] == lost
    joined = np.concatenate([block.samples for block in found[:-1]])
    assert np.array_equal(joined, np.round(32767 * 0.5 * WORDS).astype(np.int16))


@pytest.mark.parametrize("channel", [3, 0])
def test_a_channel_that_is_not_recorded_is_refused(channel, refused):
    stereo = split(np.stack([WORDS, WORDS], axis=1))
    assert "1 to 2" in refused(AudioError, lambda: list(pick_channel(stereo, channel)))


@pytest.mark.parametrize("place", [0, 1, 2])
def test_the_best_channel_is_the_one_with_the_clearest_speech(place):
    rng = np.random.default_rng(3)
    channels = [WORDS + rng.normal(0, 0.05, len(WORDS)) for _ in range(3)]
    channels[place] = WORDS
    found = list(pick_channel(split(np.stack(channels, axis=1)), "best"))
    joined = np.concatenate([block.samples for block in found[60:]])
    expected = np.round(32767 * WORDS).astype(np.int16)[60 * RATE // 20 :]
    assert np.mean(joined == expected) > 0.99


def test_the_best_channel_is_no_loopback_of_what_the_machine_plays():
    rng = np.random.default_rng(3)
    music = np.where(np.arange(len(WORDS)) % 32_000 < 9_000, rng.normal(0, 0.2, len(WORDS)), 0)
    channels = np.stack([WORDS, music], axis=1)
    found = list(pick_channel(split(channels), "best"))
    joined = np.concatenate([block.samples for block in found[100:]])
    expected = np.round(32767 * WORDS).astype(np.int16)[100 * RATE // 20 :]
    assert np.array_equal(joined, expected)
