"""What the recipe makes of a source that it did not have: the table in docs/recipe.md.

    python experiments/leave_one_source_out.py collect RUNS   # of `gpu_session.py run`
    python experiments/leave_one_source_out.py page

The trainings are those of ``gpu_plans/left_out_1.json`` and ``left_out_2.json``: a short schedule,
once with all sources and once without each; every one is measured on all of the sources.
"""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from speech.evaluation.markdown import interval, table
from speech.evaluation.metrics import wilson_interval
from speech.files import write_json, write_text

RESULTS = Path(__file__).parent / "gpu_results" / "left_out.json"
PAGE = Path(__file__).parents[1] / "docs" / "recipe.md"
START, END = "<!-- left out -->\n", "<!-- end -->"


def collect(runs: Path) -> None:
    """Keep what the trainings of some folders measured."""
    rows = {}
    for path in sorted(runs.glob("*/development.json")):
        content = json.loads(path.read_text("utf-8"))
        best = max(
            r["val_accuracy"] for r in json.loads((path.parent / "history.json").read_text())
        )
        rows[path.parent.name] = content | {"val_accuracy": round(best, 4)}
    write_json(RESULTS, rows)
    print(f"{len(rows)} trainings")


def share(row: dict[str, int], kind: str, right: str) -> str:
    """A percentage and its interval; nothing where there are no such clips."""
    if not row[kind]:
        return ""
    low, high = wilson_interval(row[right], row[kind])
    return f"{row[right] / row[kind]:.1%} ({interval(low, high, '.1%')})"


def page() -> None:
    """Write the table into the page."""
    runs: dict[str, Any] = json.loads(RESULTS.read_text("utf-8"))
    with_all = runs["all-1"]["sources"]
    rows = []
    for run in runs.values():
        name = run["left_out"]
        if not name:
            continue
        shown = name if "," not in name else f"{name.partition('/')[0]}, digits"
        for kind, right, meaning in (
            ("commands", "commands_right", "commands right"),
            ("others", "others_kept", "not called a command"),
        ):
            cells = [share(one["sources"][name], kind, right) for one in (runs["all-1"], run)]
            if cells[0]:
                rows.append((shown, meaning, f"{with_all[name][kind]:,}", *cells))
    head = ("Source", "Measured", "Clips", "Trained with it", "Trained without it")
    before, _, rest = PAGE.read_text("utf-8").partition(START)
    _, _, after = rest.partition(END)
    write_text(PAGE, f"{before}{START}{table(head, rows, align='llrrr')}\n{END}{after}")


if __name__ == "__main__":
    command, *arguments = sys.argv[1:]
    commands: dict[str, Callable[..., None]] = {"collect": collect, "page": page}
    commands[command](*map(Path, arguments))
