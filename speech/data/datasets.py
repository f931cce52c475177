"""Known corpora: where each comes from, how to know that it is the right one, its label sets."""

import dataclasses
import functools
import tomllib
from collections.abc import Mapping

from speech.data.download import Archive
from speech.errors import CorpusError
from speech.installation import resources
from speech.labels import SILENCE, UNKNOWN, LabelSet


@dataclasses.dataclass(frozen=True)
class DatasetSpec:
    """Where a corpus comes from and how to know that it is the right one."""

    name: str
    archive: Archive
    licence: str
    attribution: str
    citation: str
    label_sets: Mapping[str, LabelSet]


@functools.cache
def dataset_specs() -> dict[str, DatasetSpec]:
    """All known corpora, by name: the ``datasets/*.toml`` of the project."""
    folder = resources("datasets")
    found = {}
    for path in sorted(folder.glob("*.toml")):
        fields = tomllib.loads(path.read_text("utf-8"))
        sets = {
            name: LabelSet(name, tuple(s["words"]), s["unknown"], s["silence"])
            for name, s in fields.get("label_sets", {}).items()
        }
        archive = Archive(fields["url"], fields["sha256"], fields.get("bytes"))
        texts = {key: fields[key] for key in ("name", "licence", "attribution", "citation")}
        found[path.stem] = DatasetSpec(**texts, archive=archive, label_sets=sets)
    return found


def parse_labels(text: str) -> LabelSet:
    """A label set from text.

    Args:
        text: ``"commands-8"`` or another set that a corpus names, or words: ``"yes,no,stop"``.

    Raises:
        CorpusError: Not a known name and not at least two different words.
    """
    known = {name: s for spec in dataset_specs().values() for name, s in spec.label_sets.items()}
    if text in known:
        return known[text]
    words = tuple(word.strip() for word in text.split(",") if word.strip())
    if len(words) < 2 or len(set(words)) < len(words) or {UNKNOWN, SILENCE} & set(words):
        raise CorpusError(
            f"labels {text!r}: expected one of {', '.join(sorted(known))} or at least two "
            f"different words separated by commas, got {', '.join(words) or 'none'}; "
            "unknown and silence are added to them"
        )
    return LabelSet("own words", words)
