"""Who may import whom: the layers of docs and design, read from the source and held here."""

import ast
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

PROJECT = Path(__file__).resolve().parents[1]
PACKAGE = PROJECT / "speech"
# by their names without "speech.": "audio", "live.microphone", and "live" for a room's __init__
SOURCES = {
    ".".join(path.relative_to(PACKAGE).with_suffix("").parts).removesuffix(".__init__"): path
    for path in sorted(PACKAGE.rglob("*.py"))
}

# What stands in a layer may be imported by the layers below it. A room may also import itself.
LAYERS = (
    ("errors",),
    ("files", "config", "environment", "installation", "labels", "progress", "child"),
    ("audio_files",),
    ("audio", "features"),
    ("architecture",),
    ("keras_file",),
    ("model", "detection", "data"),
    ("formats",),
    ("recognizer",),
    ("stream",),
    ("evaluation", "live"),
    ("inside", "teach"),
    ("training",),
    ("cluster",),
    ("web",),
    ("cli",),
)
RANK = {name: rank for rank, layer in enumerate(LAYERS) for name in layer}
# Where a library may be imported at all, and where already when the module is imported. The name of
# a room stands for all its modules.
ANYWHERE = {
    "tensorflow": {"model", "training", "formats", "cli.diagnose"},
    "keras": {"model", "training", "formats"},
    "jax": {"training.ops"},
    "librosa": {"features", "formats.weights", "training.front_end"},
    "matplotlib": {"cluster.trials", "evaluation.plots", "inside.picture", "web"},
    "onnx": {"formats.to_onnx"},
    "onnxruntime": {"formats", "teach.synthesis"},
    "ai_edge_litert": {"formats"},
    "h5py": {"keras_file", "model"},
    "soundfile": {"audio", "evaluation.robustness"},
    "soxr": {"audio", "stream", "evaluation.robustness", "training.streams"},
    "sounddevice": {"live.microphone"},
    "gradio": {"web"},
    "ray": {"cluster"},
    "optuna": {"cluster"},
    "wyoming": {"live.wyoming"},
    "zeroconf": {"live.wyoming"},
    "threadpoolctl": {"environment"},
    "typer": {"cli"},
    "rich": {"cli"},
}
AT_THE_TOP = {
    "keras": {"model", "training", "formats.export"},
    "tensorflow": {"model", "training", "formats.export"},
    "librosa": set[str](),
    "onnx": set[str](),
    "onnxruntime": set[str](),
    "ai_edge_litert": set[str](),
    "h5py": set[str](),
    "sounddevice": set[str](),
    "ray": set[str](),
    "optuna": set[str](),
}
HEAVY = ("tensorflow", "keras", "librosa", "numba", "scipy", "matplotlib", "soundfile", "gradio")


class Import(NamedTuple):
    name: str
    at_the_top: bool
    only_for_types: bool
    line: int


def imports(module: str) -> Iterator[Import]:
    """Every import of a module, wherever it stands."""

    def walk(node: ast.AST, top: bool, types: bool) -> Iterator[Import]:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.Import):
                for alias in child.names:
                    yield Import(alias.name, top, types, child.lineno)
            elif isinstance(child, ast.ImportFrom):
                assert not child.level, f"{module}:{child.lineno}: a relative import"
                for alias in child.names:
                    yield Import(f"{child.module}.{alias.name}", top, types, child.lineno)
            guarded = isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test)
            function = isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
            yield from walk(child, top and not function, types or guarded)

    return walk(ast.parse(SOURCES[module].read_text("utf-8")), True, False)


def room(module: str) -> str:
    """What a module counts as in LAYERS: the folder or the single file below the package."""
    return module.split(".")[0]


def ours(module: str) -> set[str]:
    """The modules of the package that a module imports, types included; "" is the package."""
    found = set()
    for one in imports(module):
        package, _, rest = one.name.partition(".")
        if package == "speech":
            parts = rest.split(".")
            names = (".".join(parts[:n]) for n in range(len(parts), 0, -1))
            found.add(next((name for name in names if name in SOURCES), ""))
    return found


def is_in(module: str, places: set[str]) -> bool:
    return module in places or room(module) in places


MODULES = sorted(set(SOURCES) - {"__init__", "__main__"})


def test_every_module_has_its_place_in_the_layers() -> None:
    assert not {room(module) for module in MODULES} - set(RANK), "say in LAYERS who may import it"


@pytest.mark.parametrize("module", MODULES)
def test_a_module_imports_from_earlier_layers_or_its_own_room_only(module: str) -> None:
    for name in ours(module):
        package = not name and room(module) in ("web", "cli")  # the version, public names
        assert package or room(name) == room(module) or RANK[room(name)] < RANK[room(module)], name


def test_no_module_imports_itself_by_a_detour() -> None:
    arrows = {module: ours(module) - {module} for module in MODULES}
    while leaves := {module for module, names in arrows.items() if not names & set(arrows)}:
        arrows = {module: names for module, names in arrows.items() if module not in leaves}
    assert not arrows, "these import one another in a circle"


@pytest.mark.parametrize("module", MODULES)
def test_each_library_is_the_business_of_few_modules(module: str) -> None:
    for one in imports(module):
        library = one.name.split(".")[0]
        place = f"{module}:{one.line}: {one.name}"
        if library in ANYWHERE and not one.only_for_types:
            assert is_in(module, ANYWHERE[library]), place
        if library in AT_THE_TOP and one.at_the_top and not one.only_for_types:
            assert is_in(module, AT_THE_TOP[library]), place


@pytest.mark.parametrize("module", [m for m in MODULES if room(m) not in ("cli", "web")])
def test_only_front_ends_print_and_exit(module: str) -> None:
    tree = ast.parse(SOURCES[module].read_text("utf-8"))
    names = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
    calls = {ast.unparse(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call)}
    assert not names & {"print", "exit", "quit", "SystemExit", "breakpoint"}
    assert not calls & {"sys.exit", "os._exit", "os.abort", "sys.stdout.write", "sys.stderr.write"}


def test_every_room_says_what_it_is_for_and_none_is_a_grab_bag() -> None:
    rooms = [path for path in PACKAGE.iterdir() if list(path.glob("*.py"))]
    for folder in rooms:
        assert ast.get_docstring(ast.parse((folder / "__init__.py").read_text("utf-8"))), folder
    names = {part for module in SOURCES for part in module.split(".")}
    assert not {"utils", "constants", "helpers", "common", "misc"} & names
    assert not list((PROJECT / "datasets").glob("*.py"))


def loaded(program: str) -> set[str]:
    """The top-level modules of a fresh interpreter after a program."""
    done = subprocess.run(
        [sys.executable, "-c", f"{program}\nimport json, sys\nprint(json.dumps([*sys.modules]))"],
        capture_output=True,
        text=True,
        cwd=PROJECT,
        check=True,
    )
    return {name.split(".")[0] for name in json.loads(done.stdout)}


def test_importing_the_package_loads_nothing_heavy() -> None:
    assert not loaded("import speech") & set(HEAVY)


def test_reading_audio_and_the_corpus_loads_no_network_and_no_librosa() -> None:
    program = "from speech import load_audio, FeatureConfig; import speech.data.corpus"
    assert not loaded(program) & {"tensorflow", "keras", "librosa", "numba", "scipy", "matplotlib"}


def test_the_public_names_are_there_and_lazy() -> None:
    program = """
import speech, sys
assert set(speech.__all__) == set(speech._HOME)
assert speech.AudioError.__mro__[1] is speech.SpeechError
assert speech.load_audio.__module__ == "speech.audio"
assert speech.__version__
try:
    speech.nothing
except AttributeError as error:
    assert "nothing" in str(error)
else:
    raise AssertionError
for name in speech.__all__:
    getattr(speech, name)
"""
    assert "tensorflow" not in loaded(program)


def test_the_page_imports_gradio_without_letting_it_rewrite_itself() -> None:
    pytest.importorskip("gradio")
    program = """
import inspect, sys
touched, known = [], inspect.getfile
sys.addaudithook(lambda event, given: touched.append(given) if event == "open" else None)
from speech.web.gradio_patches import gradio
stubs = [path for path, *_ in touched if str(path).endswith(".pyi")]
assert not stubs, stubs
assert inspect.getfile is known
assert inspect.getfile(gradio.Audio).endswith("audio.py")
"""
    assert "gradio" in loaded(program)


@pytest.mark.parametrize("module", MODULES)
def test_the_environment_of_the_process_is_the_business_of_one_module(module: str) -> None:
    if module not in ("environment", "child"):
        text = ast.unparse(ast.parse(SOURCES[module].read_text("utf-8")))
        assert "os.environ" not in text
        assert "getenv" not in text
