"""Make inside_left.json: the data of the picture of one clip, in short.

python tests/golden/make_inside.py
"""

import json
from pathlib import Path
from typing import Any

from speech.files import write_text
from speech.inside.explanation import Explanation, explain, open_model, read_clip

ROOT = Path(__file__).parents[2]
GOLDEN = Path(__file__).with_name("inside_left.json")
REMEDY = "another model is bundled: python tests/golden/make_inside.py"


def summary(explanation: Explanation) -> dict[str, Any]:
    """Of every array the mean, the deviation, the lowest, the highest and three of its numbers."""
    rows = {}
    for name, array in explanation.arrays().items():
        values = array.astype(float).ravel()
        if not name.endswith("order"):  # two units may change places by rounding
            three = values[[0, len(values) // 2, -1]]
            numbers = [values.mean(), values.std(), values.min(), values.max(), *three]
            rows[name] = [round(float(number), 4) for number in numbers]
    header = {k: v for k, v in explanation.header().items() if isinstance(v, int | float)}
    return {"header": header, "arrays": rows}


def main() -> None:
    """Write the file."""
    model = open_model()
    clip = ROOT / "speech" / "web" / "static" / "examples" / "left.wav"
    found = summary(explain(model, read_clip(clip, model, on_note=lambda _: None)))
    lines = ",\n".join(f"    {json.dumps(n)}: {json.dumps(r)}" for n, r in found["arrays"].items())
    header = json.dumps(found["header"])
    write_text(GOLDEN, f'{{\n  "header": {header},\n  "arrays": {{\n{lines}\n  }}\n}}\n')


if __name__ == "__main__":
    main()
