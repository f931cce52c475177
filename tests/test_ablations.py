"""The ablations of experiments/: what they say, and what is shown."""

import importlib.util
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from scipy.stats import ttest_ind

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def ablations() -> ModuleType:
    path = ROOT / "experiments" / "ablations.py"
    spec = importlib.util.spec_from_file_location("ablations", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_interval_of_two_variants_is_that_of_the_t_test_with_equal_variances(
    ablations: ModuleType,
) -> None:
    rng = np.random.default_rng(0)
    recipe, other = rng.normal(0.9, 0.01, 3).tolist(), rng.normal(0.88, 0.01, 4).tolist()
    mean, half = ablations.differences({ablations.RECIPE: recipe, "other": other})["other"]
    wanted = ttest_ind(other, recipe).confidence_interval(0.95)
    assert [mean - half, mean + half] == pytest.approx([wanted.low, wanted.high])


def test_the_tables_in_the_recipe_are_those_of_the_results_that_are_kept(
    ablations: ModuleType,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    monkeypatch.setattr(ablations, "PICTURE", tmp_path / "ablations.png")
    ablations.show(list(ablations._results()))
    printed = [line for line in capsys.readouterr().out.splitlines() if line.startswith("|")]
    shown = (ROOT / "docs" / "recipe.md").read_text("utf-8").splitlines()
    assert len(printed) > len(ablations.SEEDS)
    assert [line for line in printed if line not in shown] == []
    assert (tmp_path / "ablations.png").stat().st_size > 1000
