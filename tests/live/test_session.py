"""A live session: blocks in, detections and events out; no sound card, no trained network."""

import io
from collections.abc import Iterable, Iterator

import numpy as np
import pytest
import soundfile

from speech.architecture import ModelConfig
from speech.detection import Detection
from speech.features import FeatureConfig
from speech.live.microphone import Block
from speech.live.pcm import pcm_blocks
from speech.live.session import Event, Status, decoder_for, run
from speech.live.sources import file_blocks
from speech.recognizer import Recognizer
from tests.e2e.tones import LABELS, RATE, recognizer, said

WORDS = [(0.5, "low"), (2.0, "high"), (3.5, "low")]
SPOKEN = [word for _, word in WORDS]


def blocks_of(samples: np.ndarray, rate: int = RATE, **more) -> Iterator[Block]:
    whole = np.round(32767 * samples).astype(np.int16)[:, np.newaxis]
    size = rate // 20
    return (Block(whole[i : i + size], rate, **more) for i in range(0, len(whole), size))


def items_of(blocks: Iterable[Block]) -> list:
    return list(run(blocks, decoder_for(recognizer())))


def only(kind, items: Iterable) -> list:
    return [item for item in items if isinstance(item, kind)]


def wav(path, samples: np.ndarray, rate: int = RATE):
    soundfile.write(path, samples, rate, subtype="PCM_16")
    return path


def test_each_word_is_one_detection_at_its_time():
    found = only(Detection, items_of(blocks_of(said(WORDS, 5.0))))
    assert [d.label for d in found] == SPOKEN
    for (start, _), detection in zip(WORDS, found, strict=True):
        assert start < detection.time < start + 1.0


def test_a_microphone_a_pipe_and_a_file_give_the_same_detections(tmp_path):
    samples = np.round(32767 * said(WORDS, 5.0)).astype(np.int16)
    from_microphone = blocks_of(samples / 32767)
    from_pipe = pcm_blocks(io.BytesIO(samples.astype("<i2").tobytes()), RATE)
    from_file = file_blocks(wav(tmp_path / "a.wav", samples))
    first, *others = [only(Detection, items_of(b)) for b in (from_microphone, from_pipe, from_file)]
    assert len(first) == len(WORDS)
    assert others == [first, first]


def test_a_file_of_another_rate_and_two_channels_says_the_same_words(tmp_path):
    stereo = np.repeat(said(WORDS, 5.0, 44_100)[:, np.newaxis], 2, axis=1)
    found = only(Detection, items_of(file_blocks(wav(tmp_path / "a.wav", stereo, 44_100))))
    assert [d.label for d in found] == SPOKEN


def test_a_word_at_the_very_end_of_a_file_is_detected(tmp_path):
    found = only(
        Detection, items_of(file_blocks(wav(tmp_path / "a.wav", said([(0.5, "low")], 0.9))))
    )
    assert [d.label for d in found] == ["low"]


def test_two_halves_of_a_word_around_a_loss_are_no_word_and_the_times_go_on():
    word = said([(0.0, "low")], 0.4)
    quiet = said([], 1.2)
    lost = Block(np.zeros((0, 1), np.int16), RATE, "lost", "it was lost")
    back = Block(np.zeros((0, 1), np.int16), RATE, "back", "it is back")
    for cut in (3200, len(word)):  # half of the word, the whole word
        items = items_of(
            [
                *blocks_of(np.concatenate([quiet, word[:cut]])),
                *(lost, back),
                *blocks_of(np.concatenate([word[cut:], quiet])),
                *blocks_of(np.concatenate([word, quiet])),
            ]
        )
        detections, events = only(Detection, items), only(Event, items)
        assert [(e.kind, e.message) for e in events] == [
            ("lost", "it was lost"),
            ("back", "it is back"),
        ]
        assert events[0].time == events[1].time == pytest.approx(1.2 + cut / RATE)
        assert len(detections) == (1 if cut == 3200 else 2)
        assert 2.8 < detections[-1].time < 3.8
        assert only(Status, items)[-1].time == pytest.approx(4.4)


def test_status_comes_every_tenth_of_a_second_and_tells_peak_and_best_label():
    status = only(Status, items_of(blocks_of(said([(0.5, "low")], 2.0))))
    assert [s.time for s in status] == pytest.approx([0.1 * i for i in range(1, 21)])
    assert [s.label for s in status if s.probability > 0.9 and s.label == "low"]
    assert status[0].peak < 0.05
    assert max(s.peak for s in status) == pytest.approx(0.25, abs=0.02)


def hints(samples: np.ndarray) -> list[str]:
    return [event.kind for event in only(Event, items_of(blocks_of(samples)))]


def test_clipping_muted_and_quiet_microphones_are_told_once():
    words = said(WORDS, 7.0)
    assert hints(words) == []
    assert hints(np.clip(8 * words, -1, 1)) == ["clipping"]
    assert hints(words / 50) == ["quiet"]
    assert hints(0 * words) == ["muted"]


def test_a_hint_is_shown_for_as_long_as_it_holds():
    loud = np.clip(8 * said([(0.2, "low")], 1.0), -1, 1)
    status = only(Status, items_of(blocks_of(np.concatenate([loud, said(WORDS, 9.0)]))))
    assert status[9].hint == "clipping"
    assert status[-1].hint == ""


def test_losses_are_told_at_most_once_a_second_and_none_is_forgotten():
    blocks = [
        block._replace(dropped=number, overflows=number // 30)
        for number, block in enumerate(blocks_of(said([], 5.0)), 1)
    ]
    events = only(Event, items_of(blocks))
    dropped = [e for e in events if e.kind == "dropped"]
    assert 4 <= len(dropped) <= 5
    told = sum(int(e.message.split()[0]) for e in dropped)
    assert 100 - 20 < told <= 100
    assert [e for e in events if e.kind == "overflow"]


def test_ten_minutes_of_stream_do_not_make_the_memory_grow(held_by_speech):
    def infer(waveforms: np.ndarray) -> np.ndarray:
        loud = (waveforms[:, -100:].max(axis=1) > 0.1).astype(np.float32)
        return np.stack([loud, 0 * loud, 0 * loud, 1 - loud], axis=1)

    blocks = list(blocks_of(said([(second, "low") for second in range(0, 60, 5)], 60.0)))
    config = ModelConfig(labels=LABELS, features=FeatureConfig())
    decoder = decoder_for(Recognizer("loud", config, infer))
    sizes = []

    def ten() -> Iterator[Block]:
        for _ in range(10):
            yield from blocks
            sizes.append(held_by_speech())

    n_detections = sum(isinstance(item, Detection) for item in run(ten(), decoder))
    assert n_detections == 120
    assert sizes[-1] - sizes[1] < 300_000  # ten minutes of samples are 19,200,000 bytes


def test_a_threshold_of_the_user_is_that_of_all_commands():
    assert decoder_for(recognizer()).config.thresholds == {"low": 0.7}
    config = decoder_for(recognizer(), 0.3).config
    assert (config.threshold, config.thresholds) == (0.3, {})
    assert config.release_threshold <= 0.3
    assert LABELS[0] == "low"
