"""docs/campaigns.md from docs/campaigns.json: ``python -m tests.security.campaigns``."""

import json
from pathlib import Path
from typing import Any

from speech.files import write_text

PROJECT = Path(__file__).resolve().parents[2]
RECORD, PAGE = PROJECT / "docs" / "campaigns.json", PROJECT / "docs" / "campaigns.md"
HEAD = """# Stress tests

`make campaign` runs them, for an hour or more, and writes this page and `campaigns.json` beside it,
which has every word that was detected and every number. `python -m tests.security.campaigns` writes
this page again from that file.

| What | Result | Test | When | Commit |
| --- | --- | --- | --- | --- |
"""


def _summary(result: Any) -> str:
    if not isinstance(result, dict):
        return f"{result:,}"
    parts = []
    for name, value in result.items():
        if name == "words":
            detected = {kind: len(found) for kind, found in value.items() if found}
            parts.append(f"kinds of sound: {len(value)}")
            parts.append(
                "words detected: " + (", ".join(f"{k}: {n}" for k, n in detected.items()) or "0")
            )
        elif isinstance(value, int | float):
            parts.append(f"{name}: {value:,}")
        else:
            parts.append(f"{name}: {value}")
    return "; ".join(parts)


def page(content: dict[str, Any]) -> str:
    """The page as Markdown."""
    rows = [
        f"| {what} | {_summary(each['result'])} | `{each['test']}` | {each['date']} "
        f"| `{each['commit']}` |"
        for what, each in content.items()
    ]
    return HEAD + "\n".join(rows) + "\n"


def write() -> None:
    write_text(PAGE, page(json.loads(RECORD.read_text("utf-8"))))


if __name__ == "__main__":
    write()
