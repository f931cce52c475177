"""What each part of the LSTM is worth: the answers while it is switched off."""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from speech.formats.weights import Array, Network
from speech.inside.explanation import Explanation
from speech.inside.trace import WHOLE, Ablation, softmax, trace
from speech.progress import OnProgress, no_progress

_BATCH = 32

# what is switched off, in words, and how
PARTS: Mapping[str, Ablation] = {
    "the whole network": WHOLE,
    "nothing remembered: forget gates at 0": Ablation(forget_gate=0.0),
    "nothing forgotten: forget gates at 1": Ablation(forget_gate=1.0),
    "everything written: input gates at 1": Ablation(input_gate=1.0),
    "everything shown: output gates at 1": Ablation(output_gate=1.0),
    "no forward direction": Ablation(direction="forward"),
    "no backward direction": Ablation(direction="backward"),
    "the mean instead of the attention": Ablation(attention=False),
}


def parts_of(network: Network) -> dict[str, Ablation]:
    """Those of ``PARTS`` that this network has."""
    both = len(network.lstm_layers[0]) == 2
    return {
        name: ablation
        for name, ablation in PARTS.items()
        if (both or ablation.direction is None) and (network.attention or ablation.attention)
    }


class Effect(NamedTuple):
    """What the model answers for a clip while a part is switched off."""

    part: str
    label: str
    probability: float


def effects(explanation: Explanation) -> list[Effect]:
    """The answers for a clip, without one part after the other.

    Example:
        >>> from speech.inside.explanation import explain, open_model, read_clip
        >>> from speech.inside.parts import effects
        >>> model = open_model()
        >>> clip = read_clip("left.wav", model, on_note=lambda note: None)
        >>> effects(explain(model, clip, unfolded=False))[0][:2]
        ('the whole network', 'left')
    """
    model, found = explanation.model, []
    for name, ablation in parts_of(model.network).items():
        (row,) = answers_without(model.network, explanation.mfcc[np.newaxis], ablation)
        best = int(row.argmax())
        found.append(Effect(name, model.config.labels[best], float(row[best])))
    return found


def answers_without(
    network: Network,
    mfcc: Array,
    ablation: Ablation,
    on_progress: OnProgress = no_progress,
) -> Array:
    """The probabilities (n, n_classes) of clips while a part is switched off.

    Args:
        network: The weights.
        mfcc: float32 (n, n_frames, n_mfcc).
        ablation: The part.
        on_progress: Told how many clips of how many are done.
    """
    rows = []
    for start in range(0, len(mfcc), _BATCH):
        rows.append(softmax(trace(network, mfcc[start : start + _BATCH], ablation).logits))
        on_progress(min(start + _BATCH, len(mfcc)), len(mfcc))
    return np.concatenate(rows)
