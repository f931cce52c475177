"""``speech export --to web``: what is written, what is refused, nothing left half-done."""

import base64
import dataclasses
import hashlib
import io
import json
import re
import shutil
import tarfile
from pathlib import Path

import pytest
from typer.testing import CliRunner

from speech.cli.main import app
from speech.detection import DecoderConfig
from speech.environment import cache_folder
from speech.errors import ModelError, SpeechError
from speech.files import sha256
from speech.live.session import HINTS
from speech.web import export
from speech.web.export import export_page

MODEL = Path(__file__).parents[2] / "saved_models" / "commands-8"


@pytest.fixture
def package(tmp_path, monkeypatch) -> Path:
    """A small package with the files of the runtime, taken for the right one."""
    path = tmp_path / Path(export.RUNTIME.url).name
    with tarfile.open(path, "w:gz") as tar:
        for name, content in (
            ("ort.wasm.bundle.min.mjs", b"export {};\n//# sourceMappingURL=x.map\n"),
            ("ort-wasm-simd-threaded.wasm", b"\0asm"),
            ("ort-wasm-simd-threaded.jsep.wasm", b"too much"),
        ):
            member = tarfile.TarInfo(f"package/dist/{name}")
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    size = path.stat().st_size
    own = dataclasses.replace(export.RUNTIME, sha256=sha256(path), bytes=size)
    monkeypatch.setattr(export, "RUNTIME", own)
    return path


def contents(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def test_a_page_has_the_model_the_runtime_and_the_numbers_of_python(package, tmp_path):
    page = export_page(MODEL, tmp_path / "page", package)
    files = contents(page.path)
    assert (page.files, page.size) == (len(files), sum(map(len, files.values())))
    assert files["model.onnx"] == (MODEL / "model.onnx").read_bytes()
    assert files["onnxruntime.js"] == b"export {};\n"
    assert files["onnxruntime.wasm"] == b"\0asm"
    assert 'name="commands-8"' in files["index.html"].decode()
    text = files["constants.js"].decode().split("export default ")[1].rstrip(";\n")
    assert DecoderConfig.from_dict(json.loads(text)["decoder"]) == DecoderConfig()
    assert json.loads(text)["hints"] == HINTS


def test_every_file_that_a_file_of_the_page_names_is_there(package, tmp_path):
    files = contents(export_page(MODEL, tmp_path / "page", package).path)
    names = {"style": r'@import url\("([^"]+)"', "page": r'(?:href|src)="([^"]+)"'}
    patterns = [r'(?:import|from|home|text)\(? ?"\.?/?([\w./-]+\.\w+)"', *names.values()]
    for name, content in files.items():
        if Path(name).suffix in (".js", ".css", ".html") and name != "onnxruntime.js":
            for pattern in patterns:
                for target in re.findall(pattern, content.decode()):
                    assert target in files, f"{name} names {target}"


def test_the_service_worker_knows_every_file_and_its_digest(package, tmp_path):
    files = contents(export_page(MODEL, tmp_path / "page", package).path)
    text = files.pop("service-worker.js").decode()
    digests = json.loads(text.split("FILES = ")[1].split(";")[0])
    for name, content in files.items():
        digest = base64.b64encode(hashlib.sha256(content).digest()).decode()
        assert digests.pop(name) == f"sha256-{digest}"
    assert not digests
    assert "VERSION" not in text


def test_an_earlier_page_is_replaced_and_other_files_stay(package, tmp_path):
    folder = tmp_path / "space"
    folder.mkdir()
    (folder / "README.md").write_text("sdk: static")
    export_page(MODEL, folder, package)
    (folder / "live.js").write_text("old")
    export_page(MODEL, folder, package)
    assert (folder / "README.md").read_text() == "sdk: static"
    assert (folder / "live.js").read_text() != "old"
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


def test_the_name_of_a_model_is_no_markup(package, tmp_path):
    folder = shutil.copytree(MODEL, tmp_path / 'a"><script>')
    page = export_page(folder, tmp_path / "page", package)
    assert "<script>" not in page.path.joinpath("index.html").read_text()


def test_a_model_that_no_browser_runs_is_refused(package, tmp_path, refused):
    lite = tmp_path / "model.tflite"
    lite.write_bytes(b"TFL3")
    for model, problem in (
        (lite, "got a .tflite file"),
        (MODEL / "model.keras", "got a .keras file"),
        (tmp_path / "nothing", "got no file there"),
        (tmp_path, "got no file there"),
    ):
        message = refused(ModelError, lambda: export_page(model, tmp_path / "page", package))  # noqa: B023
        assert problem in message
        assert not (tmp_path / "page").exists()


def test_an_export_of_another_training_is_refused(package, tmp_path, refused):
    folder = shutil.copytree(MODEL, tmp_path / "model")
    (folder / "model.keras").write_bytes(b"another one")
    message = refused(ModelError, lambda: export_page(folder, tmp_path / "page", package))
    assert "that of another one" in message


def test_another_page_is_not_overwritten(package, tmp_path, refused):
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "index.html").write_text("<h1>My page</h1>")
    message = refused(SpeechError, lambda: export_page(MODEL, folder, package))
    assert "got another page" in message
    assert contents(folder) == {"index.html": b"<h1>My page</h1>"}
    assert "got a file" in refused(SpeechError, lambda: export_page(MODEL, package, package))


def test_another_package_is_refused_and_stays(tmp_path, refused):
    other = tmp_path / "onnxruntime-web-1.0.0.tgz"
    other.write_bytes(b"another one")
    message = refused(ModelError, lambda: export_page(MODEL, tmp_path / "page", other))
    assert "npm pack onnxruntime-web@" in message
    assert other.exists()
    assert not (tmp_path / "page").exists()
    message = refused(ModelError, lambda: export_page(MODEL, None, tmp_path / "nothing.tgz"))
    assert "got no file" in message


def test_without_a_network_one_line_says_how_to_go_on(tmp_path, monkeypatch):
    monkeypatch.setenv("SPEECH_CACHE", str(tmp_path / "cache"))
    nowhere = "http://127.0.0.1:9/package.tgz"  # nobody listens there
    monkeypatch.setattr(export, "RUNTIME", dataclasses.replace(export.RUNTIME, url=nowhere))
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(ModelError) as caught:
        export_page(MODEL, tmp_path / "page")
    assert "or get that file elsewhere (npm pack " in str(caught.value)
    assert "\n" not in str(caught.value)
    assert caught.value.parameter == "runtime"
    assert not (tmp_path / "page").exists()


def test_the_package_comes_from_the_registry_that_npm_is_told_to_use_and_is_kept(
    package, tmp_path, monkeypatch
):
    asked = []
    (tmp_path / "npm").write_text("#!/bin/sh\necho https://npm.example.org/mirror/\n")
    (tmp_path / "npm").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")

    def download(archive, folder, on_progress):
        asked.append((archive.url, folder))
        return package

    monkeypatch.setattr(export, "download", download)
    export_page(MODEL, tmp_path / "page")
    ((url, folder),) = asked
    tail = export.RUNTIME.url.split("/", 3)[3]
    assert url == f"https://npm.example.org/mirror/{tail}"
    assert folder.parent == cache_folder()


def test_a_folder_that_cannot_be_written_is_one_line(package, tmp_path, refused):
    (tmp_path / "file").write_text("")
    message = refused(SpeechError, lambda: export_page(MODEL, tmp_path / "file" / "page", package))
    assert "expected a folder that can be written" in message


def test_the_command_writes_a_page_and_says_how_to_look_at_it(package, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    command = ["export", "commands-8", "--to", "web", "--runtime", str(package)]
    said = CliRunner().invoke(app, command)
    assert said.exit_code == 0, said.output
    assert "python -m http.server -b 127.0.0.1 -d commands-8-web" in said.output
    said = CliRunner().invoke(app, [*command, "--json", "--out", "again"])
    assert json.loads(said.output)["path"] == "again"
    assert contents(tmp_path / "again") == contents(tmp_path / "commands-8-web")
