"""What is drawn: shares, sources, and nothing of a validation speaker."""

import dataclasses

import numpy as np
import pytest

from speech.data.recordings import ContinuousSpeech
from speech.errors import ModelError
from speech.labels import LabelSet
from speech.training.augment import AugmentConfig
from speech.training.batches import ClipSource, Kind, mixed_up, spoken_spans
from speech.training.sources import Source, TrainingData, WordClips
from tests import tiny


def test_an_epoch_has_the_shares_that_the_recipe_asks_for(tmp_path):
    config = tiny.config(epoch_clips=200, unknown_share=0.2, silence_share=0.1)
    plan = ClipSource(tiny.data(tmp_path, n_train=50), tiny.LABELS, config).plan(0)
    np.testing.assert_array_equal(np.bincount(plan.label), [70, 70, 40, 20])
    np.testing.assert_array_equal(plan.kind == Kind.SILENCE, plan.label == 3)


def test_continuous_speech_takes_its_share_of_unknown_and_no_more(tmp_path):
    data = tiny.data(tmp_path, n_train=50)
    spoken = ContinuousSpeech(np.arange(40_000, dtype=np.int16) % 1000, "0", ("folder",))
    data = dataclasses.replace(data, speech=((Source("folder", "speech"), spoken),))
    config = tiny.config(epoch_clips=200, speech_share=0.25)
    source = ClipSource(data, tiny.LABELS, config)
    plan = source.plan(0)
    np.testing.assert_array_equal(np.bincount(plan.label), [70, 70, 40, 20])
    windows = plan.label[plan.kind == Kind.SPEECH]
    assert len(windows) == 10
    assert set(windows) == {tiny.LABELS.labels.index("unknown")}
    batch = next(source.batches(0))
    assert np.isfinite(batch.features).all()
    assert batch.features.shape == (16, tiny.FEATURES.n_frames, tiny.FEATURES.n_mfcc)


def test_no_clip_of_a_validation_speaker_is_ever_drawn(tmp_path):
    data = tiny.data(tmp_path)
    source = ClipSource(data, tiny.LABELS, tiny.config())
    rows = data.words[0].rows[np.concatenate([source.plan(epoch).clip for epoch in range(5)])]
    assert {data.recordings.corpus.clips[i].split for i in rows} == {"train"}


def test_a_batch_is_decided_by_seed_and_epoch_alone(tmp_path):
    data = tiny.data(tmp_path)
    config = tiny.config(augment=AugmentConfig())
    batches = [list(ClipSource(data, tiny.LABELS, config).batches(e)) for e in (1, 1, 2)]
    for first, second in zip(batches[0], batches[1], strict=True):
        np.testing.assert_array_equal(first.features, second.features)
        np.testing.assert_array_equal(first.labels, second.labels)
    assert not np.array_equal(batches[0][0].features, batches[2][0].features)


def test_a_word_without_training_clips_is_named(tmp_path):
    labels = LabelSet("x", ("low", "missing"))
    with pytest.raises(ModelError, match="none of missing"):
        ClipSource(tiny.data(tmp_path), labels, tiny.config())


def test_of_words_alone_unknown_is_drawn_from_pieces_of_all_of_them(tmp_path):
    labels = LabelSet("x", tuple(tiny.TONES))
    config = tiny.config(epoch_clips=200, unknown_share=0.2, silence_share=0.1)
    source = ClipSource(tiny.data(tmp_path), labels, config)
    assert source.words_alone
    plan = source.plan(0)
    unknown = plan.label == labels.labels.index("unknown")
    assert (plan.kind[unknown] == Kind.PIECES).all()
    assert np.count_nonzero(unknown) == np.count_nonzero(plan.kind == Kind.PIECES) == 40
    words = {clip.word for clip in source.data.recordings.corpus.clips}
    assert len({int(word) for word in source._word[plan.clip[unknown]]}) == len(words)
    for batch in source.batches(0):
        assert (batch.words[batch.labels[:, -2] == 1] == -1).all()
    assert not ClipSource(tiny.data(tmp_path), LabelSet("y", ("low", "high")), config).words_alone


def test_words_in_pieces_keep_their_sound_and_lose_their_order():
    rng = np.random.default_rng(0)
    clips = rng.integers(-9000, 9000, (20, 6400)).astype(np.int16)
    clips[:, :800] = clips[:, 5600:] = 7
    spans = np.tile([800, 5600], (20, 1))
    mixed = mixed_up(clips, spans, np.random.default_rng(1))
    assert (mixed[:, :800] == 7).all()
    assert (mixed[:, 5600:] == 7).all()
    for before, after in zip(clips[:, 800:5600], mixed[:, 800:5600], strict=True):
        assert np.mean(before == after) < 0.6
        kept = np.isin(after, before)  # but for the ramps at the joints
        assert kept.mean() > 0.7
    again = mixed_up(clips, spans, np.random.default_rng(1))
    np.testing.assert_array_equal(again, mixed)


def two_sources(tmp_path, n_first: int, n_second: int, weight: float) -> TrainingData:
    sources = []
    for name, n, share in (("first", n_first, 1.0), ("second", n_second, weight)):
        recordings = tiny.recordings(tmp_path / name, n_train=n)
        rows = np.flatnonzero([c.split == "train" for c in recordings.corpus.clips])
        sources.append(WordClips(Source(name, weight=share), recordings, rows))
    return TrainingData(tuple(sources))


def test_of_a_command_a_source_has_a_share_by_its_weight_and_the_root_of_its_clips(tmp_path):
    """Four times the clips, twice the draws; twice the weight, as many."""
    config = tiny.config(epoch_clips=6_000, batch_size=16)
    for weight in (1.0, 2.0):
        source = ClipSource(two_sources(tmp_path, 40, 10, weight), tiny.LABELS, config)
        plan = source.plan(0)
        drawn = source.source_names[plan.clip[plan.label < 2]].tolist()
        share = 2 / weight
        assert drawn.count("first") == pytest.approx(share * drawn.count("second"), rel=0.05)


def test_no_clip_of_a_thin_source_is_repeated_more_than_the_limit_times_the_average(tmp_path):
    config = tiny.config(epoch_clips=6_000, max_repeat=3.0)
    source = ClipSource(two_sources(tmp_path, 60, 1, 1000.0), tiny.LABELS, config)
    plan = source.plan(0)
    for label in (0, 1):
        counts = np.bincount(plan.clip[plan.label == label])
        assert counts.max() <= 3.0 * counts[counts > 0].mean() + 1


def test_an_unknown_word_is_drawn_by_the_square_root_of_its_clips(tmp_path):
    """Four times the clips, twice the draws."""
    recordings = tiny.recordings(tmp_path, n_train=40)
    train = [i for i, c in enumerate(recordings.corpus.clips) if c.split == "train"]
    clips = recordings.corpus.clips
    few = [i for i in train if clips[i].word == "other"][:10]
    rows = np.array([i for i in train if clips[i].word != "other"] + few)
    data = TrainingData((WordClips(Source("x"), recordings, rows),))
    config = tiny.config(epoch_clips=4_000, unknown_share=0.5)
    source = ClipSource(data, tiny.LABELS, config)
    plan = source.plan(0)
    words = [clips[i].word for i in rows[plan.clip[plan.label == 2]]]
    assert words.count("another") == pytest.approx(2 * words.count("other"), rel=0.05)


def test_the_span_of_a_word_is_where_it_is_loud():
    clip = np.zeros((1, 16_000), np.int16)
    clip[0, 6_000:9_000] = 1_000
    begin, end = spoken_spans(clip)[0]
    assert 5_600 <= begin <= 6_000
    assert 9_000 <= end <= 9_500
