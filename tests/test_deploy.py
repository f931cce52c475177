"""What is deployed elsewhere asks for the packages that the project asks for."""

import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import yaml
from ray.autoscaler._private.util import prepare_config, validate_config

ROOT = Path(__file__).parent.parent
SPACE = ROOT / "docs" / "deploy" / "space"
CLUSTER = ROOT / "examples" / "cluster"


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


def test_the_container_builds_the_package_from_what_is_copied_into_it(tmp_path):
    text = (ROOT / "docs" / "deploy" / "Dockerfile").read_text()
    lines = re.findall(r"^COPY (?!--from)(.+)$", text, re.M)
    copied = {source for line in lines for source in line.split()[:-1]}
    allowed = [line[1:] for line in (ROOT / ".dockerignore").read_text().split() if line[0] == "!"]
    assert {pattern.split("/")[0] for pattern in allowed} == copied
    for path in (path for pattern in allowed for path in ROOT.glob(pattern)):
        target = tmp_path / "source" / path.relative_to(ROOT)
        target.parent.mkdir(parents=True, exist_ok=True)
        (shutil.copytree if path.is_dir() else shutil.copy)(path, target)
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)]
    subprocess.run(command, cwd=tmp_path / "source", check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    for needed in ("cli/main.py", "_models/commands-8/model.onnx", "web/static/live.js"):
        assert f"speech/{needed}" in names


def test_the_container_runs_as_an_ordinary_user_and_says_whether_the_page_is_there():
    text = (ROOT / "docs" / "deploy" / "Dockerfile").read_text()
    final = text.split("\nFROM ")[-1]
    assert re.search(r"^USER (?!root|0)\w+$", final, re.M)
    assert "HEALTHCHECK" in final
    assert "urlopen('http://127.0.0.1:7860/'" in final


def test_the_files_for_a_cluster_are_what_ray_takes_and_name_the_version_that_was_tested():
    [ray] = re.findall(r"^ray==(.+)$", (ROOT / "constraints.txt").read_text(), re.M)
    launcher = yaml.safe_load((CLUSTER / "ray-cluster.yaml").read_text())
    validate_config(prepare_config(launcher))
    job = yaml.safe_load((CLUSTER / "scan-job.yaml").read_text())
    assert (job["apiVersion"], job["kind"]) == ("ray.io/v1", "RayJob")
    assert job["spec"]["rayClusterSpec"]["rayVersion"] == ray
    assert f"FROM rayproject/ray:{ray}-py" in (CLUSTER / "Dockerfile").read_text()
    arguments = job["spec"]["entrypoint"].split()
    assert arguments[:2] == ["speech", "scan"]
    assert set(arguments) > {"--ray", "--out"}
    cluster = job["spec"]["rayClusterSpec"]
    groups = [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]
    images = [c["image"] for group in groups for c in group["template"]["spec"]["containers"]]
    assert len(set(images)) == 1, "all nodes have the same packages"
