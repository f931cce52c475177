"""Draw docs/architecture.svg from the imports of the package.

python docs/draw_architecture.py [PICTURE]

A box is a module, or a room (a folder) with its modules. A box stands one level above the highest
box that it imports. What lies below audio may be imported by all, and has no arrows. Arrows that
follow from others are left out too: if web imports live and live imports stream, web may import
stream.
"""

import sys
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from measure_code import arrows, read_package

# the seven modules that sound passes, in that order
SPINE = ("audio", "features", "labels", "model", "recognizer", "detection", "stream")
NOTES = {
    "data": "where clips come from",
    "training": "how the network learns",
    "formats": "from a model to a file and back",
    "evaluation": "how good a model is",
    "live": "sound that has no end",
    "teach": "words of one's own",
    "inside": "what the LSTM does",
    "cluster": "more than one machine",
    "web": "the page in the browser",
    "cli": "the terminal",
}
GAP, PAD, LINE, LETTER = 0.35, 0.16, 0.19, 0.078  # inches
SPINE_STYLE = ("#cfe8ff", "#0072b2", "bold")  # fill, outline, weight of the letters
ROOM_STYLE = ("#f3f3f3", "#777777", "normal")

Edges = set[tuple[str, str]]


def room_of(module: str) -> str:
    """The folder or the module directly below the package."""
    return module.split(".")[0]


def rooms(package: Mapping[str, str]) -> tuple[dict[str, list[str]], Edges]:
    """The rooms with their modules, and which room imports which."""
    modules: dict[str, list[str]] = {}
    for module in sorted(set(package) - {"", "__main__"}):
        modules.setdefault(room_of(module), [])
        if "." in module:
            modules[room_of(module)].append(module.partition(".")[2])
    pairs = {(room_of(start), room_of(end)) for start, end in arrows(package)}
    return modules, {(a, b) for a, b in pairs if a != b and {a, b} <= set(modules)}


def levels(names: set[str], edges: Edges) -> dict[str, int]:
    """How far above the ground each room stands."""
    level: dict[str, int] = {}
    while left := names - set(level):
        ready = {a for a in left if {b for start, b in edges if start == a} <= set(level)}
        level |= dict.fromkeys(ready, max(level.values(), default=-1) + 1)
    return level


def without_shortcuts(edges: Edges) -> Edges:
    """The edges from which all others follow."""

    def reached(start: str) -> set[str]:
        ends = {b for a, b in edges if a == start}
        return ends.union(*map(reached, ends))

    return {
        (a, b)
        for a, b in edges
        if not any(b in reached(other) for start, other in edges if start == a and other != b)
    }


def text_of(room: str, modules: list[str]) -> str:
    """What stands in a box."""
    title = f"{SPINE.index(room) + 1}  {room}.py" if room in SPINE else f"{room}.py"
    if not modules:
        return title
    return "\n".join((f"{room}/", NOTES.get(room, ""), *textwrap.wrap(" ".join(modules), 40)))


class Box(NamedTuple):
    """Where a box stands, in inches from the lower left corner of the picture."""

    left: float
    bottom: float
    right: float
    top: float

    @property
    def center(self) -> tuple[float, float]:
        """Its middle."""
        return (self.left + self.right) / 2, (self.bottom + self.top) / 2


def route(start: Box, end: Box, between: Sequence[Box]) -> list[tuple[float, float]]:
    """The corners of an arrow down from a box to another, around the boxes between."""
    (x, y), (end_x, _) = start.center, end.center
    if not between:
        return [(x, start.bottom), (end_x, end.top)]
    if end_x > x:
        lane = max(box.right for box in between) + GAP / 2
        side = start.right
    else:
        lane = min(box.left for box in between) - GAP / 2
        side = start.left
    below = start.left < lane < start.right
    corners = [(lane, start.bottom)] if below else [(side, y), (lane, y)]
    if end.left < lane < end.right:
        return [*corners, (lane, end.top)]
    return [*corners, (lane, end.top + GAP), (end_x, end.top)]


def draw(package: Mapping[str, str], picture: Path) -> None:
    """Write the picture; the ending of its name decides the format."""
    import matplotlib as mpl

    mpl.use("agg")
    mpl.rcParams["svg.hashsalt"] = "the same file at every run"
    from matplotlib import pyplot as plt
    from matplotlib.patches import FancyArrowPatch, FancyBboxPatch
    from matplotlib.path import Path as MplPath

    modules, edges = rooms(package)
    level = levels(set(modules), edges)
    texts = {room: text_of(room, names) for room, names in modules.items()}
    widths = {r: 2 * PAD + LETTER * max(map(len, t.splitlines())) for r, t in texts.items()}
    heights = {r: 2 * PAD + LINE * len(t.splitlines()) for r, t in texts.items()}
    rows = [[r for r in texts if level[r] == n] for n in range(max(level.values()) + 1)]
    for row in rows:
        row.sort(key=lambda room: (room in SPINE, SPINE.index(room) if room in SPINE else 0))
    total = max(sum(widths[r] + GAP for r in row) for row in rows) + GAP
    top = sum(max(heights[r] for r in row) + 2 * GAP for row in rows)
    figure = plt.figure(figsize=(total, top + GAP))
    axes = figure.add_axes((0, 0, 1, 1), xlim=(0, total), ylim=(-GAP, top), frame_on=False)
    axes.set(xticks=[], yticks=[])
    boxes: dict[str, Box] = {}
    bottom = 0.0
    for row in rows:
        x = (total - sum(widths[r] + GAP for r in row) + GAP) / 2
        tall = max(heights[r] for r in row)
        for room in row:
            corner = (x, bottom + (tall - heights[room]) / 2)
            on_spine = room in SPINE
            fill, outline, weight = SPINE_STYLE if on_spine else ROOM_STYLE
            axes.add_patch(
                FancyBboxPatch(corner, widths[room], heights[room], fc=fill, ec=outline, lw=1.2,
                               boxstyle="round,pad=0,rounding_size=0.08", zorder=2)
            )  # fmt: skip
            boxes[room] = Box(x, corner[1], x + widths[room], corner[1] + heights[room])
            label: Any = {"ha": "center", "va": "center", "fontsize": 9, "linespacing": 1.35}
            axes.text(*boxes[room].center, texts[room], weight=weight, zorder=3, **label)
            x += widths[room] + GAP
        bottom += tall + 2 * GAP
    shown = {(a, b) for a, b in edges if level[b] >= level[SPINE[0]]}
    for start, end in sorted(without_shortcuts(shown)):
        between = [boxes[r] for r in boxes if level[end] < level[r] < level[start]]
        line = MplPath(route(boxes[start], boxes[end], between))
        axes.add_patch(
            FancyArrowPatch(path=line, arrowstyle="-|>", mutation_scale=9, lw=0.9, color="#999999",
                            shrinkA=0, shrinkB=1, zorder=1)
        )  # fmt: skip
    metadata = {"Date": None} if picture.suffix == ".svg" else None
    figure.savefig(picture, facecolor="white", metadata=metadata)


if __name__ == "__main__":
    arguments = sys.argv[1:] or [str(Path(__file__).with_name("architecture.svg"))]
    draw(read_package(), Path(arguments[0]))
