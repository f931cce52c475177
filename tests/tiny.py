"""A corpus small enough to learn in seconds: each word is a tone of its own, in a little noise."""

import dataclasses
from pathlib import Path

import numpy as np
import soundfile

from speech.architecture import ModelConfig
from speech.data.corpus import Clip, Corpus, Split
from speech.data.recordings import Recordings
from speech.features import FeatureConfig
from speech.labels import LabelSet
from speech.model import Architecture
from speech.training.augment import AugmentConfig
from speech.training.config import TrainConfig
from speech.training.sources import TrainingData, with_sources

FEATURES = FeatureConfig(clip_seconds=0.4, hop_seconds=0.02, n_mels=40, n_mfcc=13)
LABELS = LabelSet("tones", ("low", "high"))
CONFIG = ModelConfig(labels=LABELS.labels, features=FEATURES)
TONES = {"low": 300.0, "high": 1500.0, "other": 700.0, "another": 3000.0}


def tone(word: str, rng: np.random.Generator, features: FeatureConfig = FEATURES) -> np.ndarray:
    time = np.arange(features.n_samples) / features.sample_rate
    pitch = TONES[word] * rng.uniform(0.9, 1.1)
    wave = rng.uniform(0.1, 0.5) * np.sin(2 * np.pi * pitch * time + rng.uniform(0, 6))
    return (wave + rng.normal(0, 0.01, len(time))).astype(np.float32)


def recordings(folder, n_train=24, n_validation=8, features=FEATURES, shuffled=False) -> Recordings:
    """The corpus in memory; ``shuffled`` takes every connection of sound and word away."""
    rng = np.random.default_rng(5)
    clips, samples = [], []
    for word in TONES:
        for index in range(n_train + n_validation):
            split: Split = "train" if index < n_train else "validation"
            clips.append(Clip(f"{word}/{index:08x}_nohash_0.wav", word, split))
            sounds = list(TONES)[rng.integers(len(TONES))] if shuffled else word
            samples.append(tone(sounds, rng, features))
    noise = rng.normal(0, 0.1, 5 * features.sample_rate)
    return Recordings(
        Corpus(folder, tuple(clips), ("_background_noise_/hiss.wav",), ()),
        np.round(np.array(samples) * 32767).astype(np.int16),
        (np.round(np.clip(noise, -1, 1) * 32767).astype(np.int16),),
        "0" * 64,
        folder,
    )


def data(folder, **changes) -> TrainingData:
    """The same corpus as the only source of a training."""
    return with_sources(recordings(folder, **changes), FEATURES)


def write_corpus(root: Path) -> Path:
    """The tones as a folder of WAV files, with speakers of all official splits."""
    rng = np.random.default_rng(1)
    for word in TONES:
        (root / word).mkdir(parents=True)
        for speaker in range(30):
            name = f"{speaker:08x}_nohash_0.wav"
            soundfile.write(root / word / name, tone(word, rng), FEATURES.sample_rate)
    (root / "_background_noise_").mkdir()
    hiss = rng.normal(0, 0.1, 80_000)
    soundfile.write(root / "_background_noise_" / "hiss.wav", hiss, FEATURES.sample_rate)
    return root


def config(**changes) -> TrainConfig:
    small = TrainConfig(
        epochs=2,
        epoch_clips=128,
        batch_size=16,
        learning_rate=1e-2,
        warmup_epochs=0.5,
        ema_momentum=0.5,
        word_loss=0.0,
        n_backgrounds=8,
        unknown_share=0.2,
        silence_share=0.1,
        features=FEATURES,
        architecture=Architecture(conv_filters=(8,), lstm_layers=1, lstm_units=8),
        augment=AugmentConfig.none(),
    )
    return dataclasses.replace(small, **changes)
