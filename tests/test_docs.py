"""What the documentation says: links lead somewhere, examples run, pictures are of this code."""

import doctest
import importlib
import inspect
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import typer

import speech
from speech.cli.main import app
from tests.test_imports import LAYERS

PROJECT = Path(__file__).resolve().parents[1]
DOCS = PROJECT / "docs"
PAGES = [
    *PROJECT.glob("*.md"),
    *DOCS.glob("*.md"),
    *(PROJECT / "examples").glob("*.md"),
    PROJECT / "datasets" / "README.md",
]
CLIP = PROJECT / "speech" / "web" / "static" / "examples" / "left.wav"
COMMANDS = typer.main.get_command(app).commands  # type: ignore[attr-defined]
WITH_EXAMPLES = [
    ".".join(path.relative_to(PROJECT).with_suffix("").parts).removesuffix(".__init__")
    for path in sorted((PROJECT / "speech").rglob("*.py"))
    if ">>> " in path.read_text("utf-8")
]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(PROJECT)))
def test_every_link_of_a_page_leads_to_a_file(page):
    for target in re.findall(r"\]\(([^)#\s]+)", page.read_text("utf-8")):
        if "://" not in target:
            assert (page.parent / target).exists(), target


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(PROJECT)))
def test_every_command_of_a_page_exists_with_its_options(page):
    text = page.read_text("utf-8")
    for line in re.findall(r"(?:^|`)speech ((?:--debug )?[a-z][^`\n#]*)", text, re.M):
        name, *words = line.removeprefix("--debug ").split()
        if page.name == "CHANGELOG.md":
            continue  # it tells of commands as they were
        assert name in COMMANDS, line
        known = {option for p in COMMANDS[name].params for option in (*p.opts, *p.secondary_opts)}
        used = {word.split("=")[0].rstrip(",.;)") for word in words if word.startswith("--")}
        assert used <= known | {"--help"}, line


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(PROJECT)))
def test_no_page_points_to_a_folder_that_a_reader_cannot_have(page):
    assert "../shared" not in page.read_text("utf-8")


@pytest.mark.parametrize("module", WITH_EXAMPLES)
def test_the_examples_in_the_docstrings_run(module, monkeypatch):
    monkeypatch.chdir(CLIP.parent)  # there lie the recordings that they name
    result = doctest.testmod(
        importlib.import_module(module),
        extraglobs={"speech": speech},
        optionflags=doctest.ELLIPSIS,
    )
    assert result.attempted
    assert not result.failed


@pytest.mark.parametrize("name", speech.__all__)
def test_every_public_name_has_an_example(name):
    assert ">>>" in (getattr(speech, name).__doc__ or "")


def test_the_site_builds_strictly(tmp_path):
    pytest.importorskip("mkdocs")
    pytest.importorskip("mkdocstrings")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "-d", str(tmp_path)],
        cwd=PROJECT,
        env=os.environ | {"NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr


def test_the_picture_of_the_architecture_is_drawn_from_the_imports(monkeypatch, tmp_path):
    pytest.importorskip("matplotlib")
    monkeypatch.syspath_prepend(str(DOCS))
    import draw_architecture as drawing
    import measure_code

    package = measure_code.read_package()
    modules, edges = drawing.rooms(package)
    level = drawing.levels(set(modules), edges)
    rank = {name: number for number, layer in enumerate(LAYERS) for name in layer}
    assert all(level[start] > level[end] and rank[start] > rank[end] for start, end in edges)
    assert set(drawing.SPINE) <= set(modules)
    drawing.draw(package, tmp_path / "architecture.svg")
    text = (tmp_path / "architecture.svg").read_text("utf-8")
    assert all(f"{room}." in text or f"{room}/" in text for room in modules)
    boxes = r"<!-- (?:\d +)?(\w+)(?:\.py|/)"
    shown = (DOCS / "architecture.svg").read_text("utf-8")
    assert set(re.findall(boxes, shown)) == set(re.findall(boxes, text)) == set(modules)


def test_a_shortcut_is_left_out_of_the_picture_and_nothing_else(monkeypatch):
    monkeypatch.syspath_prepend(str(DOCS))
    from draw_architecture import without_shortcuts

    edges = {("web", "live"), ("live", "stream"), ("web", "stream"), ("web", "audio")}
    assert without_shortcuts(edges) == edges - {("web", "stream")}


def test_the_counts_of_the_code_are_those_of_a_small_package(monkeypatch):
    monkeypatch.syspath_prepend(str(DOCS))
    import measure_code

    package = {
        "": "",
        "low": "def f(a, b):\n    '''Two\n    lines.'''\n    return a\n",
        "room.high": "from speech import low\nimport speech.low\nfrom speech.low import f\n",
    }
    assert measure_code.arrows(package) == {("room.high", "low")}
    assert measure_code.levels(package) == 2
    assert measure_code.functions(package) == [measure_code.Function(2, 2, "low.f")]


def test_files_and_functions_stay_short(monkeypatch):
    monkeypatch.syspath_prepend(str(DOCS))
    import measure_code

    package = measure_code.read_package()
    assert [name for name, text in package.items() if text.count("\n") > 500] == []
    functions = measure_code.functions(package)
    assert [function for function in functions if function.lines > 60] == []
    wide = [function.name for function in functions if function.parameters > 8]
    assert wide == [], "put together in one object what belongs together"


def test_every_sentence_about_a_microphone_is_explained():
    from speech.live.mic_check import advice
    from speech.live.session import HINTS

    page = (DOCS / "troubleshooting.md").read_text("utf-8")
    source = inspect.getsource(advice)
    sentences = [part.strip(" ,") for part in re.findall(r'(?:return \(?\s*)f?"([^"{]+)', source)]
    assert len(sentences) > 6
    for sentence in [*sentences, HINTS["muted"]]:
        assert f"| {sentence.rstrip(' ,')}" in page, sentence


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(PROJECT)))
def test_every_piece_of_python_on_a_page_is_python_and_uses_names_that_exist(page):
    for source in re.findall(r"^```python\n(.*?)^```", page.read_text("utf-8"), re.M | re.S):
        compile(source, str(page), "exec")
        for name in re.findall(r"\bspeech\.([A-Za-z_]\w*)", re.sub(r"[\"'].*?[\"']", "", source)):
            assert name in speech.__all__, name
