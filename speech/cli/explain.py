"""The command that looks inside the network: explain."""

import json
from typing import TYPE_CHECKING

import typer

from speech.cli import options
from speech.cli.console import console, table
from speech.cli.options import DEFAULT_MODEL, examples

if TYPE_CHECKING:
    from speech.inside.attribution import Attribution
    from speech.inside.parts import Effect

app = typer.Typer()


@app.command(
    epilog=examples(
        "speech explain left.wav",
        "speech explain left.wav --html left.html --png left.png",
        "speech explain left.wav --label right --json",
    )
)
def explain(
    source: options.ExplainedSource,
    model: options.ModelOption = DEFAULT_MODEL,
    label: options.ExplainedLabel = "",
    png: options.ExplainedPng = None,
    html: options.ExplainedHtml = None,
    as_json: options.AsJson = False,
) -> None:
    """Show what the LSTM does with a clip: its gates, its memory, and what speaks for a class."""
    from speech.files import readable_name, write_text
    from speech.inside.attribution import attribute
    from speech.inside.explanation import explain, open_model, read_clip
    from speech.inside.packing import contents, to_dict
    from speech.inside.parts import effects

    opened = open_model(model)
    explanation = explain(opened, read_clip(source, opened))
    attribution = attribute(opened, explanation.log_mel, label)
    worth = effects(explanation)
    if png is not None:
        from speech.evaluation.plots import save
        from speech.inside.picture import picture

        save(picture(*contents(explanation, attribution)), png)
    if html is not None:
        from speech.web.explained import explained_page

        name = readable_name(source.name)
        write_text(html, explained_page(name, explanation, attribution, worth))
    if as_json:
        rows = [effect._asdict() for effect in worth]
        typer.echo(json.dumps(to_dict(explanation, attribution) | {"without": rows}))
    else:
        _print(attribution, worth)


def _print(attribution: "Attribution", worth: "list[Effect]") -> None:
    rows = table("Switched off", "Answer", "Probability")
    for effect in worth:
        rows.add_row(effect.part, effect.label, f"{effect.probability:.3f}")
    console().print(rows)
    typer.echo(
        f"Log-odds of {attribution.label}: {attribution.score:.2f}, of silence "
        f"{attribution.silence_score:.2f}. --png, --html and --json show the gates, the memory and "
        "the attention."
    )
