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
        learning_rate: Peak of the learning rate, reached after the warm-up.
        warmup_epochs: Length of the linear warm-up.
        weight_decay: Decoupled weight decay (AdamW, Loshchilov and Hutter, arXiv 1711.05101).
        clip_norm: The gradient is scaled down to this global norm (Pascanu et al., 2013).
        label_smoothing: Share of the target spread over all classes.
        mixup: Parameter of the Beta distribution that pairs of clips are mixed by (Zhang et al.,
            arXiv 1710.09412); 0 for none.
        ema: Momentum of the moving average of the weights, which is what is kept and measured
            (Polyak and Juditsky, 1992); 0 for none.
        unknown_share: Share of unknown among the clips of an epoch.
        silence_share: Share of silence.
        speech_share: Share of windows of continuous speech among unknown, where there is such.
        spliced_share: Share of halves of two different words, put together, among unknown.
        excluded: Words that are left out, to see how the network takes what it never heard.
        balanced: Draw every word equally often; else as often as the corpus has it.
        patience: Stop when the validation accuracy has not risen for so many epochs.
        explosion: Stop with an error when the gradient's norm before clipping exceeds this.
        features: The preprocessing.
        architecture: The network.
        augment: The augmentation.
    """

    seed: int = 1
    epochs: int = 60
    epoch_clips: int = 16_000
    batch_size: int = 128
    learning_rate: float = 2e-3
    warmup_epochs: float = 2.0
    weight_decay: float = 1e-2
    clip_norm: float = 1.0
    label_smoothing: float = 0.05
    mixup: float = 0.0
    ema: float = 0.995
    unknown_share: float = 0.2
    silence_share: float = 0.1
    speech_share: float = 0.4
    spliced_share: float = 0.0
    excluded: tuple[str, ...] = ()
    balanced: bool = True
    patience: int = 30
    explosion: float = 1e4
    features: FeatureConfig = dataclasses.field(default_factory=FeatureConfig)
    architecture: Architecture = dataclasses.field(default_factory=Architecture)
    augment: AugmentConfig = dataclasses.field(default_factory=AugmentConfig)
