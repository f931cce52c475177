"""Lay out the sources of the shipped recipe as folders of links, held-out voices kept apart.

    python experiments/prepare_sources.py ../shared datasets/sources

Synthetic voices that are held out never train, neither by themselves nor blended with another:
what they have a part in goes to ``held_out``, for thresholds.
"""

import csv
import sys
from pathlib import Path

HELD_OUT_VOICES = {"af_river", "am_eric", "bm_fable"}
KEPT_FOR_OWN_WORDS = {
    "six",
    "seven",
    "eight",
    "nine",
}  # of spoken_digits: the set of `speech teach`
NEGATIVE = ("alexa", "computer", "smart_mirror", "view_glass")  # jarvis and snowboy measure


def link(source: Path, target: Path) -> None:
    """Make ``target`` a symbolic link to a file, unless it is there."""
    target.parent.mkdir(parents=True, exist_ok=True)
    if not target.is_symlink():
        target.symlink_to(source.resolve())


def main(shared: Path, out: Path) -> None:
    """Link every file of ``shared`` that may train below ``out``, one folder a source."""
    for path in sorted((shared / "speech_commands").iterdir()):
        link(path, out / "speech_commands" / path.name)
    for path in sorted((shared / "isolated_words").iterdir()):
        if path.is_dir() and not path.name.startswith("zh_"):
            link(path, out / "isolated_words" / path.name)
    for path in sorted((shared / "spoken_digits").iterdir()):
        if path.is_dir() and path.name not in KEPT_FOR_OWN_WORDS:
            link(path, out / "spoken_digits" / path.name)
    for name in NEGATIVE:
        link(shared / "negative_speech" / name, out / "negative_speech" / name)
    synthetic = shared / "synthetic_speech"
    with (synthetic / "manifest.csv").open(encoding="utf-8") as file:
        for name, _text, first, second, *_rest in csv.reader(file):
            if {first, second} & HELD_OUT_VOICES:
                link(synthetic / name, out / "held_out" / name)
            else:
                folder = "synthetic_" + name.split("/")[0]
                link(synthetic / name, out / folder / name.split("/", 1)[1])


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
