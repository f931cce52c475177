"""What is deployed elsewhere asks for the packages that the project asks for."""

import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).parent.parent
SPACE = ROOT / "docs" / "deploy" / "space"


def test_a_space_installs_what_the_page_wants_and_the_sdk_that_was_tested():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = {*project["dependencies"], *project["optional-dependencies"]["app"]}
    lines = (SPACE / "requirements.txt").read_text().splitlines()
    asked = {line for line in lines if not line.startswith("#")}
    (sdk,) = wanted - asked
    assert asked < wanted
    assert sdk.startswith("gradio>=")
    version = re.search(r"^sdk_version: (\S+)$", (SPACE / "README.md").read_text(), re.M)
    assert version is not None
    assert f"gradio=={version[1]}" in (ROOT / "constraints.txt").read_text().splitlines()


def test_the_container_copies_what_is_there():
    text = (ROOT / "docs" / "deploy" / "Dockerfile").read_text()
    for line in re.findall(r"^COPY (.+)$", text, re.M):
        *sources, _target = line.split()
        assert sources
        assert all((ROOT / source).exists() for source in sources)
