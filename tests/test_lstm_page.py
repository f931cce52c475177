"""docs/lstm.md: its tables are those of the measurements beside it, and its gradients are right."""

import json
from pathlib import Path

import numpy as np
import pytest

DOCS = Path(__file__).parents[1] / "docs"
EXPERIMENTS = DOCS.parent / "experiments"


@pytest.fixture(autouse=True)
def experiments_are_found(monkeypatch):
    monkeypatch.syspath_prepend(str(EXPERIMENTS))


def test_the_tables_of_the_page_are_those_of_its_measurements():
    from lstm_figures import with_tables

    measured = json.loads((DOCS / "lstm" / "measured.json").read_text("utf-8"))
    text = (DOCS / "lstm.md").read_text("utf-8")
    assert with_tables(text, measured) == text
    assert len(measured["forecast"]["errors"]["LSTM"]) == 10


@pytest.mark.parametrize("cell", ["LSTM", "SimpleRNN"])
def test_the_gradient_by_step_is_the_limit_of_differences(cell):
    import keras
    from lstm_training import gradient_by_step

    keras.utils.set_random_seed(1)
    layer, dense = getattr(keras.layers, cell)(4), keras.layers.Dense(3)
    rng = np.random.default_rng(1)
    x, y = rng.normal(size=(1, 6, 5)).astype(np.float32), np.array([2])
    dense(layer(x))
    found = gradient_by_step(layer.cell, dense, x, y)

    def loss(step: int, push: np.ndarray) -> float:
        states = layer.cell.get_initial_state(batch_size=1)
        for t in range(6):
            _, states = layer.cell(x[:, t], states)
            if t == step and cell == "LSTM":  # what the memory shows moves with it: h = o tanh(c)
                hidden, memory = states
                shown = keras.ops.tanh(memory + push) / keras.ops.tanh(memory)
                states = [hidden * shown, memory + push]
            elif t == step:
                states = [states[0] + push]
            output = states[0]
        logits = np.asarray(dense(output), np.float64)[0]
        return float(np.log(np.exp(logits).sum()) - logits[2])

    for step in range(6):
        slopes = [
            (loss(step, 1e-2 * way) - loss(step, -1e-2 * way)) / 2e-2
            for way in np.eye(4, dtype=np.float32)
        ]
        assert found[step] == pytest.approx(np.linalg.norm(slopes), rel=0.02, abs=1e-4)
