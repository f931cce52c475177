"""What the attacks share: the model, and a file that says what was tried, when, on which commit."""

import datetime as dt
import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from speech.files import write_json
from tests.conftest import PROJECT
from tests.security import campaigns

# as in `make app MODEL=...`
MODEL = Path(os.environ.get("MODEL", PROJECT / "saved_models" / "commands-8"))


@pytest.fixture
def record(request: pytest.FixtureRequest) -> Callable[[str, Any], None]:
    """``record(what, result)`` writes it to docs/campaigns.json and .md, under the test's name."""

    def write(what: str, result: Any) -> None:
        head = subprocess.run(
            ["git", "rev-parse", "--short", "HEAD"],
            cwd=PROJECT, capture_output=True, text=True, check=True,
        ).stdout.strip()  # fmt: skip
        content = (
            json.loads(campaigns.RECORD.read_text("utf-8")) if campaigns.RECORD.exists() else {}
        )
        now = dt.datetime.now(dt.UTC).strftime("%Y-%m-%d %H:%M UTC")
        test = f"{request.node.path.name}::{request.node.name}"
        content[what] = {"result": result, "test": test, "date": now, "commit": head}
        write_json(campaigns.RECORD, dict(sorted(content.items())))
        campaigns.write()

    return write
