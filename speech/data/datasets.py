"""Known corpora: address, checksum, license and label sets of each."""

import dataclasses
import difflib
import functools
import tomllib
from collections.abc import Mapping

from speech.data.download import Archive
from speech.errors import CorpusError
from speech.files import readable_name
from speech.installation import resources
from speech.labels import SILENCE, UNKNOWN, LabelSet


@dataclasses.dataclass(frozen=True)
class DatasetSpec:
    """Address, checksum, license and label sets of a corpus."""

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
    specs = {}
    for path in sorted(folder.glob("*.toml")):
        fields = tomllib.loads(path.read_text("utf-8"))
        sets = {
            name: LabelSet(name, tuple(s["words"]), s["unknown"], s["silence"])
            for name, s in fields.get("label_sets", {}).items()
        }
        archive = Archive(fields["url"], fields["sha256"], fields.get("bytes"))
        texts = {key: fields[key] for key in ("name", "licence", "attribution", "citation")}
        specs[path.stem] = DatasetSpec(**texts, archive=archive, label_sets=sets)
    return specs


def parse_labels(text: str) -> LabelSet:
    """A label set from text.

    Args:
        text: ``"commands-8"`` or another set that a corpus names, or words: ``"yes,no,stop"``. One
            word is enough: it is told from unknown and silence, which are added.

    Raises:
        CorpusError: No word, a word twice, unknown or silence, or what looks like a misspelled name
            of a set.
    """
    known = {name: s for spec in dataset_specs().values() for name, s in spec.label_sets.items()}
    if text in known:
        return known[text]
    words = tuple(readable_name(word.strip()) for word in text.split(",") if word.strip())
    folded = [word.casefold() for word in words]
    misspelled = len(words) == 1 and difflib.get_close_matches(folded[0], known, 1, 0.8)
    if not words or len(set(folded)) < len(words) or {UNKNOWN, SILENCE} & set(folded) or misspelled:
        raise CorpusError(
            f"labels {text!r}: expected one of {', '.join(sorted(known))}, or different words "
            f"separated by commas, got {', '.join(words) or 'none'}; unknown and silence are added "
            "to them"
        )
    return LabelSet("own words", words)
