"""The laws of the plots: a picture says what the data say, legibly, and is written whole."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import imread
from matplotlib.text import Text

from speech.evaluation import plots
from speech.evaluation.metrics import ClipMetrics, clip_metrics
from speech.features import FeatureConfig

LABELS = ("yes", "no", "up", "down")
CONFIG = FeatureConfig()
HISTORY = [
    {
        "epoch": epoch,
        "loss": 2 / epoch,
        "accuracy": 1 - 0.5 / epoch,
        "val_loss": 2.2 / epoch,
        "val_accuracy": 1 - 0.6 / epoch,
        "learning_rate": 1e-3 / epoch,
        "gradient_norm": 1.0 + epoch % 2,
        "seconds": 3.0,
    }
    for epoch in range(1, 6)
]


def example(n: int = 300) -> ClipMetrics:
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 3, n)  # no clip of the last label
    logits = rng.normal(size=(n, 4)) + 3 * np.eye(4)[truth]
    p = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    return clip_metrics(p, truth, LABELS)


def tone(n: int) -> npt.NDArray[Any]:
    return np.sin(np.arange(n) / 20).astype(np.float32) / 2


def coefficients(n_frames: int = 98) -> npt.NDArray[Any]:
    return np.random.default_rng(1).normal(size=(n_frames, 40)).astype(np.float32)


PICTURES: dict[str, Callable[..., Figure]] = {
    "confusion": lambda **kw: plots.confusion_matrix(example(), **kw),
    "reliability": lambda **kw: plots.reliability_diagram(example(), **kw),
    "curves": lambda **kw: plots.learning_curves(HISTORY, **kw),
    "waveform": lambda **kw: plots.waveform(tone(16_000), 16_000, **kw),
    "mfcc": lambda **kw: plots.mfcc_image(coefficients(), CONFIG, **kw),
}
EXTREMES: dict[str, Callable[[], Figure]] = {
    "one clip": lambda: plots.reliability_diagram(example(1)),
    "one clip's matrix": lambda: plots.confusion_matrix(example(1)),
    "one epoch": lambda: plots.learning_curves(HISTORY[:1]),
    "one sample": lambda: plots.waveform(np.zeros(1), 16_000),
    "a minute of noise": lambda: plots.waveform(
        np.random.default_rng(2).uniform(-1, 1, 960_000), 16_000
    ),
    "one frame": lambda: plots.mfcc_image(coefficients(1), CONFIG),
    "digital silence": lambda: plots.mfcc_image(np.zeros((98, 40)), CONFIG),
    "35 labels' matrix": lambda: plots.confusion_matrix(
        clip_metrics(np.eye(35), range(35), [f"word{i}" for i in range(35)])
    ),
}


def words(figure: Figure) -> list[str]:
    """Every visible text in the picture."""
    figure.draw_without_rendering()
    texts = figure.findobj(lambda a: isinstance(a, Text) and a.get_visible())
    return [text.get_text() for text in texts if isinstance(text, Text) and text.get_text()]


def axis_words(ax: Axes) -> tuple[str, str]:
    return ax.get_xlabel(), ax.get_ylabel()


@pytest.mark.parametrize("name", PICTURES)
def test_the_saved_picture_decodes_at_its_size_and_is_not_blank(name: str, tmp_path: Path) -> None:
    plots.save(PICTURES[name](figsize=(5.0, 4.0)), tmp_path / "picture.png")
    pixels = imread(tmp_path / "picture.png")
    assert pixels.shape[:2] == (480, 600)
    assert pixels[..., :3].std() > 0.02
    assert pixels[0, 0, :3].tolist() == [1, 1, 1]


@pytest.mark.parametrize("name", [*PICTURES, *EXTREMES])
def test_every_word_lies_within_the_picture(name: str) -> None:
    figure = (PICTURES | EXTREMES)[name]()
    figure.draw_without_rendering()
    width, height = figure.bbox.width, figure.bbox.height
    box = figure.get_tightbbox().transformed(figure.dpi_scale_trans)
    assert box.x0 >= -1
    assert box.y0 >= -1
    assert box.x1 <= width + 1
    assert box.y1 <= height + 1


@pytest.mark.parametrize("name", EXTREMES)
def test_the_least_and_the_most_can_be_drawn_without_a_warning(name: str, tmp_path: Path) -> None:
    plots.save(EXTREMES[name](), tmp_path / "picture.png")
    assert imread(tmp_path / "picture.png").size


def test_importing_plots_does_not_bring_pyplot_along() -> None:
    code = "import sys, speech.evaluation.plots; sys.exit('matplotlib.pyplot' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_the_confusion_matrix_shows_shares_as_colour_and_counts_as_text() -> None:
    metrics = example()
    figure = plots.confusion_matrix(metrics)
    ax = figure.axes[0]
    assert axis_words(ax) == ("Predicted", "Truth")
    assert [t.get_text() for t in ax.get_yticklabels()] == list(LABELS)
    counts = {
        (round(t.get_position()[1]), round(t.get_position()[0])): int(t.get_text())
        for t in ax.texts
    }
    rows = enumerate(metrics.confusion)
    assert counts == {(i, j): n for i, row in rows for j, n in enumerate(row) if n}
    sums = np.asarray(ax.images[0].get_array()).sum(axis=1)
    assert sums == pytest.approx([1, 1, 1, 0])


def test_the_reliability_diagram_counts_every_clip_and_names_the_error() -> None:
    metrics = example()
    figure = plots.reliability_diagram(metrics)
    top, bottom = figure.axes
    assert sum(bar.get_height() for bar in bottom.patches) == metrics.n  # type: ignore[attr-defined]
    assert axis_words(bottom) == ("Confidence", "Clips")
    assert top.get_ylabel() == "Accuracy"
    assert {f"Expected calibration error {metrics.ece:.3f}", "perfect calibration"} <= set(
        words(figure)
    )


def test_learning_curves_are_four_panels_with_the_numbers_of_the_history() -> None:
    figure = plots.learning_curves(HISTORY)
    drawn = {ax.get_title(loc="left"): ax.get_lines() for ax in figure.axes}
    keys = {
        "Loss": ["loss", "val_loss"],
        "Accuracy": ["accuracy", "val_accuracy"],
        "Learning rate": ["learning_rate"],
        "Gradient norm": ["gradient_norm"],
    }
    assert drawn.keys() == keys.keys()
    for title, lines in drawn.items():
        for line, key in zip(lines, keys[title], strict=True):
            assert np.asarray(line.get_xdata()).tolist() == [1, 2, 3, 4, 5]
            assert np.asarray(line.get_ydata()).tolist() == [row[key] for row in HISTORY]
    assert {"training", "validation", "Epoch"} <= set(words(figure))


@pytest.mark.parametrize("n", [50, 1_999, 2_001, 16_000, 48_123])
def test_the_waveform_keeps_its_peaks_and_its_length_in_seconds(n: int) -> None:
    samples = tone(n)
    samples[n // 3], samples[n // 2] = 0.9, -0.8
    ax = plots.waveform(samples, 16_000).axes[0]
    outline = ax.collections[0].get_paths()[0].vertices
    low, high = np.min(outline, axis=0), np.max(outline, axis=0)
    assert (low[1], high[1]) == pytest.approx((-0.8, 0.9))
    assert ax.get_xlim() == pytest.approx((0, n / 16_000))
    assert axis_words(ax) == ("Time (s)", "Amplitude")


def test_an_mfcc_frame_lies_at_the_middle_of_its_window_in_seconds() -> None:
    ax = plots.mfcc_image(coefficients(), CONFIG).axes[0]
    left, right, bottom, top = ax.images[0].get_extent()
    frame = (right - left) / 98
    assert frame == pytest.approx(0.010)
    assert left + frame / 2 == pytest.approx(0.015)
    assert right - frame / 2 == pytest.approx(0.015 + 97 * 0.010)
    assert (bottom, top) == (-0.5, 39.5)
    assert axis_words(ax) == ("Time (s)", "Coefficient")


def test_saving_replaces_the_old_picture_and_leaves_nothing_beside_it(tmp_path: Path) -> None:
    path = tmp_path / "picture.png"
    path.write_bytes(b"old")
    plots.save(PICTURES["confusion"](), str(path))
    assert path.read_bytes().startswith(b"\x89PNG")
    assert list(tmp_path.iterdir()) == [path]


def test_a_save_that_fails_leaves_the_old_picture_and_nothing_beside_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "picture.png"
    path.write_bytes(b"old")

    def half(self: Figure, target: Path, **_: object) -> None:
        Path(target).write_bytes(b"half")
        raise OSError("disk full")

    monkeypatch.setattr(Figure, "savefig", half)
    with pytest.raises(OSError, match="disk full"):
        plots.save(PICTURES["confusion"](), path)
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    "draw",
    [
        lambda: plots.learning_curves([]),
        lambda: plots.learning_curves([{"epoch": 1, "loss": 0.5}]),
        lambda: plots.waveform(np.zeros(0), 16_000),
        lambda: plots.waveform(np.zeros((5, 2)), 16_000),
        lambda: plots.waveform(np.zeros(5), 0),
        lambda: plots.mfcc_image(np.zeros((98, 13)), CONFIG),
        lambda: plots.mfcc_image(np.zeros((0, 40)), CONFIG),
    ],
)
def test_bad_input_is_refused_with_what_was_expected_and_got(draw: Callable[[], Figure]) -> None:
    with pytest.raises(ValueError, match=r"expected .*, got "):
        draw()
