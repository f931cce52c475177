"""Modules, import arrows, lines and the longest function of the package, at any git revision.

python docs/measure_code.py [REVISION ...]

Without a revision the working tree is measured. An arrow leads from a module to another module of
the package that it imports, anywhere in the file and also for types only. The lines of a function
leave out its docstring, its parameters ``self`` and ``cls``.
"""

import ast
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

PROJECT = Path(__file__).resolve().parents[1]


class Function(NamedTuple):
    """A function: its lines without the docstring, its parameters, and where it stands."""

    lines: int
    parameters: int
    name: str


def read_package(revision: str = "") -> dict[str, str]:
    """The text of every module by its dotted name below ``speech``; "" is the package itself.

    Args:
        revision: Of git; "" for the working tree.
    """
    if revision:
        names = _git("ls-tree", "-r", "--name-only", revision, "speech/").splitlines()
        texts = {name: _git("show", f"{revision}:{name}") for name in names if name[-3:] == ".py"}
    else:
        paths = sorted((PROJECT / "speech").rglob("*.py"))
        texts = {p.relative_to(PROJECT).as_posix(): p.read_text("utf-8") for p in paths}
    return {_module_name(path): text for path, text in texts.items()}


def _git(*arguments: str) -> str:
    command = ["git", "-C", str(PROJECT), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def _module_name(path: str) -> str:
    parts = path.removesuffix(".py").split("/")[1:]
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def arrows(package: Mapping[str, str]) -> set[tuple[str, str]]:
    """Pairs of modules, of which the first imports the second."""
    found = set()
    for module, text in package.items():
        for name in _imported(ast.parse(text)):
            first, _, rest = name.partition(".")
            if first == "speech":
                parts = rest.split(".")
                tails = (".".join(parts[:n]) for n in range(len(parts), -1, -1))
                found.add((module, next(tail for tail in tails if tail in package)))
    return {(start, end) for start, end in found if start != end}


def _imported(tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def functions(package: Mapping[str, str]) -> list[Function]:
    """Every function and method of the package."""
    found = []
    for module, text in package.items():
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                assert node.end_lineno is not None
                lines = node.end_lineno - node.lineno + 1
                first = node.body[0]
                if ast.get_docstring(node) is not None and first.end_lineno is not None:
                    lines -= first.end_lineno - first.lineno + 1
                kinds = (node.args.posonlyargs, node.args.args, node.args.kwonlyargs)
                names = {argument.arg for kind in kinds for argument in kind} - {"self", "cls"}
                found.append(Function(lines, len(names), f"{module}.{node.name}"))
    return found


def levels(package: Mapping[str, str]) -> int:
    """Modules on the longest chain of imports; 0 if they import one another in a circle."""
    left = {
        module: {end for start, end in arrows(package) if start == module} for module in package
    }
    count = 0
    while leaves := {module for module, ends in left.items() if not ends & set(left)}:
        left = {module: ends for module, ends in left.items() if module not in leaves}
        count += 1
    return 0 if left else count


def main(revisions: list[str]) -> None:
    """Print one row of a Markdown table for each revision."""
    head = ("revision", "modules", "arrows", "levels", "lines", "longest file", "longest function")
    print(f"| {' | '.join(head)} | most parameters |\n|{' --- |' * 8}")
    for revision in revisions or [""]:
        package = read_package(revision)
        sizes = {name: text.count("\n") for name, text in package.items()}
        largest = max(sizes, key=lambda name: sizes[name])
        longest = max(functions(package))
        widest = max(functions(package), key=lambda function: function.parameters)
        cells = (
            revision or "working tree",
            len(package),
            len(arrows(package)),
            levels(package),
            sum(sizes.values()),
            f"{largest}, {sizes[largest]}",
            f"{longest.name}, {longest.lines}",
            f"{widest.name}, {widest.parameters}",
        )
        print(f"| {' | '.join(map(str, cells))} |")


if __name__ == "__main__":
    main(sys.argv[1:])
