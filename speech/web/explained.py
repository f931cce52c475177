"""An explanation as one HTML file that can be mailed: it is opened without a server."""

import base64
import html
from collections.abc import Sequence
from pathlib import Path

from speech.inside.attribution import Attribution
from speech.inside.explanation import Explanation
from speech.inside.packing import pack
from speech.inside.parts import Effect

_STATIC = Path(__file__).parent / "static"
_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{title}</title>
<style>
body {{ max-width: 72rem; margin: 0 auto; padding: 1rem; font-family: system-ui, sans-serif; }}
table {{ border-collapse: collapse; }}
th, td {{ padding: 0.2rem 1rem 0.2rem 0; text-align: left; }}
{style}
</style>
</head>
<body class="inside-alone">
<h1>{title}</h1>
<div id="inside"></div>
<h2>What each part is worth</h2>
<table>
<thead><tr><th>Switched off</th><th>Answer</th><th>Probability</th></tr></thead>
<tbody>
{rows}
</tbody>
</table>
<script>
{script}
const bytes = Uint8Array.from(atob("{data}"), (letter) => letter.charCodeAt(0));
drawInside(document.getElementById("inside"), bytes.buffer);
</script>
</body>
</html>
"""


def explained_page(
    name: str,
    explanation: Explanation,
    attribution: Attribution | None = None,
    effects: Sequence[Effect] = (),
) -> str:
    """The page, with the sound, the numbers and what draws them inside.

    Args:
        name: Of the recording.
        explanation: What is shown.
        attribution: Shown beside it.
        effects: What the model answers without a part, a row each.
    """
    rows = (
        f"<tr><td>{html.escape(e.part)}</td><td>{html.escape(e.label)}</td>"
        f"<td>{e.probability:.1%}</td></tr>"
        for e in effects
    )
    return _PAGE.format(
        title=html.escape(f"Inside the LSTM: {name}"),
        style=(_STATIC / "inside.css").read_text("utf-8"),
        script=(_STATIC / "inside.js").read_text("utf-8"),
        data=base64.b64encode(pack(explanation, attribution=attribution, with_sound=True)).decode(),
        rows="\n".join(rows),
    )
