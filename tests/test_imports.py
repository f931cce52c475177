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
SOURCES = {path.stem: path for path in sorted((PROJECT / "speech").glob("*.py"))}
if (PROJECT / "app.py").exists():
    SOURCES["app"] = PROJECT / "app.py"

# A module may import those of earlier lines, not those of its own.
LAYERS = (
    ("cores", "errors", "files", "evaluation", "terminal"),
    ("archive", "audio", "features", "stream_metrics"),
    ("augment", "container", "corpus", "keras_archive", "label_files", "plots"),
    ("model", "provenance", "streams"),
    ("matrices", "runtime", "train_config"),
    ("batches", "export_litert", "export_onnx", "train_recipes"),
    ("training", "export"),
    ("recognizer",),
    ("robustness", "stream"),
    ("scan", "stream_score"),
    ("stream_choice",),
    ("stream_report",),
    ("report",),
    ("microphone",),
    ("listen", "doctor", "benchmark"),
    ("live", "recording", "shelf"),
    ("check",),
    ("cli_score",),
    ("cli_hear",),
    ("cli", "app"),
    ("__main__",),
)
RANK = {module: rank for rank, layer in enumerate(LAYERS) for module in layer}
# Where a library may be imported at all, and where when the module is imported.
ANYWHERE = {
    "librosa": {"benchmark", "features", "matrices"},
    "matplotlib": {"plots"},
    "numba": {"augment"},
    "onnx": {"export_onnx"},
    "onnxruntime": {"export_onnx", "runtime"},
    "ai_edge_litert": {"runtime"},
    "h5py": {"keras_archive"},
    "soundfile": {"audio", "benchmark", "robustness"},
    "soxr": {"audio", "robustness", "stream"},
    "sounddevice": {"microphone"},
    "gradio": {"app"},
    "threadpoolctl": {"cores"},
    "typer": {"cli", "cli_hear", "cli_score", "terminal"},
    "rich": {"terminal", "cli"},
}
AT_THE_TOP = {
    "keras": {"model", "training", "export"},
    "tensorflow": {"model", "training", "export"},
    "librosa": set[str](),
    "onnx": set[str](),
    "onnxruntime": set[str](),
    "ai_edge_litert": set[str](),
    "h5py": set[str](),
    "sounddevice": set[str](),
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


def ours(module: str) -> set[str]:
    """The modules of the package that a module imports, types included."""
    found = set()
    for one in imports(module):
        package, _, rest = one.name.partition(".")
        name = rest.split(".")[0]
        if package == "app":
            found.add("app")
        elif package == "speech":
            found.add(name if name in SOURCES else "__init__")
    return found


MODULES = sorted(set(SOURCES) - {"__init__"})


def test_every_module_has_its_place_in_the_layers() -> None:
    assert not set(MODULES) - set(RANK), "say in LAYERS who may import it"


@pytest.mark.parametrize("module", MODULES)
def test_a_module_imports_from_lower_layers_only(module: str) -> None:
    lower = {name for name, rank in RANK.items() if rank < RANK[module]}
    allowed = lower | ({"__init__"} if module in ("cli", "app") else set())
    assert ours(module) <= allowed


@pytest.mark.parametrize("module", MODULES)
def test_nothing_imports_the_front_ends(module: str) -> None:
    if module not in ("__main__", "cli", "cli_hear"):
        assert not ours(module) & {"cli", "cli_hear", "cli_score", "app", "__main__"}


@pytest.mark.parametrize(
    ("module", "allowed"),
    [
        ("errors", set()),
        ("files", set()),
        ("evaluation", set()),
        ("archive", {"errors"}),
        ("audio", {"errors"}),
        ("plots", {"evaluation", "features", "files"}),
    ],
)
def test_the_lowest_modules_know_next_to_nothing(module: str, allowed: set[str]) -> None:
    assert ours(module) <= allowed


@pytest.mark.parametrize("module", MODULES)
def test_each_library_is_the_business_of_few_modules(module: str) -> None:
    for one in imports(module):
        library = one.name.split(".")[0]
        place = f"{module}.py:{one.line}: {one.name}"
        if library in ANYWHERE and not one.only_for_types:
            # the type of what plots returns has to have a name in app
            named = (module, one.name) == ("app", "matplotlib.figure.Figure")
            assert named or module in ANYWHERE[library], place
        if library in AT_THE_TOP and one.at_the_top and not one.only_for_types:
            assert module in AT_THE_TOP[library], place


@pytest.mark.parametrize(
    "module", sorted(set(MODULES) - {"cli", "cli_hear", "cli_score", "app", "__main__"})
)
def test_only_front_ends_print_and_exit(module: str) -> None:
    tree = ast.parse(SOURCES[module].read_text("utf-8"))
    names = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
    calls = {ast.unparse(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call)}
    assert not names & {"print", "exit", "quit", "SystemExit", "breakpoint"}
    assert not calls & {"sys.exit", "os._exit", "os.abort", "sys.stdout.write", "sys.stderr.write"}


def test_there_are_no_packages_inside_and_no_grab_bags() -> None:
    assert not [p for p in (PROJECT / "speech").iterdir() if (p / "__init__.py").exists()]
    assert not {"utils", "constants", "helpers", "common", "misc"} & set(SOURCES)
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


def test_the_app_imports_gradio_without_letting_it_rewrite_itself() -> None:
    pytest.importorskip("gradio")
    program = """
import inspect, sys
touched, known = [], inspect.getfile
sys.addaudithook(lambda event, given: touched.append(given) if event == "open" else None)
import app
stubs = [path for path, *_ in touched if str(path).endswith(".pyi")]
assert not stubs, stubs
assert inspect.getfile is known
assert inspect.getfile(app.gr.Audio).endswith("audio.py")
"""
    assert "gradio" in loaded(program)
