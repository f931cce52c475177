"""Markdown of the pages that are computed: tables, inline code, shares and intervals."""

from collections.abc import Iterable, Sequence


def table(header: Sequence[str], rows: Iterable[Sequence[object]], align: str = "") -> str:
    """A GitHub table, without a line break at its end.

    Args:
        header: Names of the columns.
        rows: Cells; what stands in them is text, a bar in it is escaped.
        align: A letter a column, ``l`` or ``r``; by default the first is left, the others right.
    """
    align = align or "l" + "r" * (len(header) - 1)
    rule = ["---:" if side == "r" else "---" for side in align]
    return "\n".join(
        "| " + " | ".join(str(cell).replace("|", r"\|") for cell in row) + " |"
        for row in (header, rule, *rows)
    )


def code(text: str) -> str:
    """Inline code, so that ``_unknown_`` keeps its underscores."""
    return f"`{text}`"


def interval(low: float, high: float, form: str = ".1%") -> str:
    """Such as ``83.0% to 94.3%``."""
    return f"{low:{form}} to {high:{form}}"
