"""The benchmark's table: what it compares, and that the real thing runs."""

from pathlib import Path

import numpy as np
import pytest

from speech.architecture import Causality
from speech.errors import ModelError
from speech.evaluation.benchmark import Measurement, benchmark, markdown, model_files, table
from speech.model import Architecture
from tests import exports

SHIPPED = Path(__file__).parents[2] / "saved_models" / "commands-8" / "model.onnx"
MEASUREMENTS = [
    Measurement("One clip, ms", "ONNX", (1.0, 2.0, 9.0)),
    Measurement("One clip, ms", "baseline", (20.0, 40.0, 30.0), is_baseline=True),
    Measurement("Clips/s", "ONNX", (500.0,), more_is_better=True),
    Measurement("Clips/s", "baseline", (10.0,), more_is_better=True, is_baseline=True),
    Measurement("Size, MB", "ONNX", (3.0,)),
]


def test_a_ratio_above_one_is_better_whether_more_is_better_or_less():
    rows = {row[:2]: row[2:] for row in table(MEASUREMENTS)}
    assert rows["One clip, ms", "ONNX"] == ("2", "1 to 9", "15 times")
    assert rows["One clip, ms", "baseline"] == ("30", "20 to 40", "")
    assert rows["Clips/s", "ONNX"] == ("500", "500 to 500", "50 times")
    assert rows["Size, MB", "ONNX"][2] == "", "no baseline to compare with"


def test_the_page_holds_every_figure_and_the_command_that_made_it():
    page = markdown(MEASUREMENTS, "speech benchmark --rounds 3")
    assert "`speech benchmark --rounds 3`" in page
    for row in table(MEASUREMENTS):
        assert f"## {row[0]}" in page
        assert f"| {row[1]} | {row[2]} | {row[3]} |" in page
        assert f" {row[4]} |" in page


def test_a_folder_without_a_model_is_refused(tmp_path):
    with pytest.raises(ModelError, match="expected the folder of a model"):
        benchmark(tmp_path)


def test_of_a_causal_model_what_carries_a_state_is_measured_and_not_its_keras_file(tmp_path):
    made = exports.model(
        Architecture((6, 8), 1, 10, bidirectional=False, pooling="state", causal=True)
    )
    made.causality = Causality(4, 0.04)
    folder = exports.folder(tmp_path, made)
    assert model_files(folder) == {"ONNX": folder / "model.onnx"}
    (folder / "model.onnx").unlink()
    with pytest.raises(
        ModelError, match=r"expected an export of the causal model .* got model\.ke"
    ):
        model_files(folder)
    clips = tmp_path / "clips"
    clips.mkdir()
    assert set(model_files(exports.folder(clips, exports.model()))) == {
        "ONNX",
        "Keras, predict_on_batch",
    }


@pytest.mark.slow
def test_every_metric_of_the_shipped_model_is_measured(tmp_path):
    (tmp_path / "model.onnx").write_bytes(SHIPPED.read_bytes())  # without Keras it is quick
    measurements = benchmark(tmp_path, rounds=1)
    assert {m.variant for m in measurements} == {"ONNX"}
    assert all(len(m.values) == 1 and np.min(m.values) > 0 for m in measurements)
    metrics = {m.metric for m in measurements}
    assert {"Size, MB", "Loading, s", "A whole process for one clip, s"} <= metrics
    assert len(metrics) == len(measurements) == 9
