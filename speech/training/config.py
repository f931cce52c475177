"""The recipe of a training run, and nothing that runs."""

import dataclasses

from speech.config import Config
from speech.features import FeatureConfig
from speech.model import Architecture
from speech.training.augment import AugmentConfig


@dataclasses.dataclass(frozen=True)
class TrainConfig(Config):
    """The recipe of a training run.

    Attributes:
        seed: Decides initial weights, order, augmentation and dropout.
        epochs: Number of epochs; the learning rate falls to nearly zero at the last.
        epoch_clips: Clips in an epoch (the corpus is drawn from, not passed through).
        batch_size: Clips in a step.
        parts: Parts of a batch, each drawn by itself, so that as many processes can share a step;
            however many share it, the batch is the same.
        learning_rate: Peak of the learning rate, reached after the warm-up.
        warmup_epochs: Length of the linear warm-up.
        weight_decay: Decoupled weight decay (AdamW, Loshchilov and Hutter, arXiv 1711.05101).
        clip_norm: The gradient is scaled down to this global norm (Pascanu et al., 2013).
        label_smoothing: Share of the target spread over all classes.
        ema_momentum: Momentum of the moving average of the weights, which is what is kept and
            measured (Polyak and Juditsky, 1992); 0 for none.
        unknown_share: Share of unknown among the clips of an epoch.
        silence_share: Share of silence.
        speech_share: Share of windows of continuous speech among unknown, where there is such.
        teacher_share: Share of the target that teachers decide, where there are some (Hinton et
            al., arXiv 1503.02531).
        word_loss: Weight of a second output on the same network, which tells all words of the
            sources apart instead of calling most of them unknown; it is dropped after training.
        max_repeat: No clip of a label is drawn more often than this many times the average clip.
        n_backgrounds: How many backgrounds are synthesized, besides those that are drawn anew in
            every batch.
        held_out_words: Words that are left out, to see what the network makes of unseen words.
        patience: Stop when the validation accuracy has not risen for so many epochs.
        max_gradient_norm: Stop with an error when the norm before clipping exceeds this.
        features: The preprocessing.
        architecture: The network.
        augment: The augmentation.
    """

    seed: int = 1
    epochs: int = 60
    epoch_clips: int = 16_000
    batch_size: int = 128
    parts: int = 1
    learning_rate: float = 2e-3
    warmup_epochs: float = 2.0
    weight_decay: float = 1e-2
    clip_norm: float = 1.0
    label_smoothing: float = 0.05
    ema_momentum: float = 0.995
    unknown_share: float = 0.3
    silence_share: float = 0.12
    speech_share: float = 0.4
    teacher_share: float = 0.5
    word_loss: float = 0.3
    max_repeat: float = 6.0
    n_backgrounds: int = 600
    held_out_words: tuple[str, ...] = ()
    patience: int = 30
    max_gradient_norm: float = 1e4
    features: FeatureConfig = dataclasses.field(default_factory=FeatureConfig)
    architecture: Architecture = dataclasses.field(default_factory=Architecture)
    augment: AugmentConfig = dataclasses.field(default_factory=AugmentConfig)

    def __post_init__(self) -> None:
        positive = (
            "epochs",
            "epoch_clips",
            "batch_size",
            "parts",
            "learning_rate",
            "max_repeat",
            "n_backgrounds",
        )
        for name in positive:
            if not 0 < getattr(self, name) < 1e12:
                raise ValueError(f"{name} must be above 0, got {getattr(self, name)}")
        if self.batch_size > self.epoch_clips:
            raise ValueError(
                f"expected at least one batch of {self.batch_size} clips in an epoch, got "
                f"{self.epoch_clips} clips; take a smaller batch or a longer epoch"
            )
        if self.batch_size % self.parts:
            raise ValueError(
                f"expected a batch_size that can be divided by its {self.parts} parts, got "
                f"{self.batch_size}"
            )
        if not 0 <= self.unknown_share + self.silence_share < 1:
            raise ValueError(
                f"unknown_share + silence_share must lie in [0, 1), got "
                f"{self.unknown_share} + {self.silence_share}"
            )
        if not (0 <= self.speech_share <= 1 and 0 <= self.ema_momentum < 1):
            raise ValueError(
                f"speech_share must lie in [0, 1] and ema_momentum in [0, 1), got "
                f"{self.speech_share} and {self.ema_momentum}"
            )
