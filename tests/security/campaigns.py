"""docs/campaigns.md from docs/campaigns.json: ``python -m tests.security.campaigns``."""

import json
from pathlib import Path
from typing import Any

from speech.files import write_text

PROJECT = Path(__file__).resolve().parents[2]
RECORD, PAGE = PROJECT / "docs" / "campaigns.json", PROJECT / "docs" / "campaigns.md"
HEAD = """# What the long attacks tried, and what came of it

`make campaign` runs them and writes this page and `campaigns.json` beside it, which has every word
that was heard and every number; `python -m tests.security.campaigns` writes this page again.

| What | Result | Test | When | Commit |
| --- | --- | --- | --- | --- |
"""


def _summary(result: Any) -> str:
    if not isinstance(result, dict):
        return f"{result:,}"
    parts = []
    for name, value in result.items():
        if name == "words":
            heard = {kind: len(found) for kind, found in value.items() if found}
            parts.append(f"kinds heard through: {len(value)}")
            parts.append(
                "words heard: " + (", ".join(f"{k}: {n}" for k, n in heard.items()) or "0")
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
