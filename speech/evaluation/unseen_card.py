"""The section of the model card on unseen sources."""

from collections.abc import Mapping
from typing import Any

from speech.evaluation.markdown import code, interval, table

_WANTED = {
    "commands": "commands recognized",
    "other words": "other words not called a command",
    "rooms": "rooms not called a command",
}


def section(unseen: Mapping[str, Any]) -> str:
    """Recall, false accepts and false accepts per hour of each source, with 95 % intervals."""
    parts = [
        "## On unseen sources",
        "Recordings by other people, in other rooms, with other microphones, and words that it "
        "never learned. **Nothing was trained or tuned on them.** Look here first for what to "
        "expect of your own voice.",
    ]
    if unseen["trained_on"]:
        names = ", ".join(map(code, unseen["trained_on"]))
        parts.append(
            f"> [!CAUTION]\n> The model was trained on folders of these names: {names}. Their rows "
            "say nothing about unseen sources."
        )
    if unseen["clips"]:
        several = len({row["source"] for row in unseen["clips"]}) > 1
        rows = [*unseen["clips"], *(unseen["total"] if several else ())]
        header = ("Source", "What is measured", "Clips", "Most probable label", "95 % interval")
        parts.append(
            table((*header, "With acceptance", "95 % interval"), map(_clip_cells, rows), "llrrlrl")
        )
        parts.append("By word: " + "; ".join(map(_by_word, unseen["clips"])) + ".")
    if unseen["speech"]:
        columns = ("Continuous speech", "Hours", "False accepts per hour", "95 % interval")
        parts.append(table(columns, map(_speech_cells, unseen["speech"]), "lrrl"))
    if figures := unseen["open_set"]:
        parts.append(
            f"Commands against other words, by the probability of the most probable command: AUROC "
            f"{figures['auroc']:.3f}; where {figures['false_accept_rate']:.0%} of the "
            f"{figures['other_words']} clips of other words are accepted, "
            f"{figures['false_reject_rate']:.1%} of the {figures['commands']} clips of commands "
            "are rejected."
        )
    if unseen["unreadable"]:
        parts.append(
            f"{len(unseen['unreadable'])} files were left out because they could not be read, for "
            f"example {code(unseen['unreadable'][0])}."
        )
    return "\n\n".join(parts) + "\n"


def _clip_cells(row: Mapping[str, Any]) -> tuple[object, ...]:
    return (
        "**all sources**" if row["source"] == "all" else row["source"],
        _WANTED[row["kind"]],
        row["n"],
        f"{row['rate']:.1%}",
        interval(row["low"], row["high"]),
        f"{row['rate_with_acceptance']:.1%}",
        interval(row["low_with_acceptance"], row["high_with_acceptance"]),
    )


def _by_word(row: Mapping[str, Any]) -> str:
    words = ", ".join(f"{code(word)} {right}/{n}" for word, (n, right, _) in row["by_word"].items())
    return f"{row['source']}, {_WANTED[row['kind']]}: {words}"


def _speech_cells(row: Mapping[str, Any]) -> tuple[object, ...]:
    low, high = row["low"], row["high"]
    return (
        row["source"],
        f"{row['hours']:.2f}",
        f"{row['false_accepts_per_hour']:.1f} ({row['false_accepts']})",
        f"{low:.1f} to {high:.1f}",
    )
