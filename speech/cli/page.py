"""The command that serves the page in the browser: ``speech app``, which ``app.py`` calls too."""

from pathlib import Path
from typing import Annotated, Any

import typer

from speech.cli.options import ModelOption, examples
from speech.installation import DEFAULT_MODEL, find_model, resources

app = typer.Typer()
_OWN_MODELS = Path("saved_models")  # in the working folder, where `speech train --out` puts them


@app.command("app", epilog=examples("speech app --port 8000"))
def serve_page(
    model: ModelOption = Path(DEFAULT_MODEL),
    # Hugging Face tells a Space by Gradio's variables where to listen
    host: Annotated[
        str, typer.Option(envvar="GRADIO_SERVER_NAME", help="Address to listen at.")
    ] = "127.0.0.1",
    port: Annotated[
        int,
        typer.Option(envvar="GRADIO_SERVER_PORT", min=1, max=65_535, help="Port to listen at."),
    ] = 7860,
    share: Annotated[
        bool, typer.Option("--share", help="Also give it a public address, by Gradio's servers.")
    ] = False,
    certificate: Annotated[
        Path | None,
        typer.Option("--ssl-certfile", help="TLS certificate (PEM), which makes it https."),
    ] = None,
    key: Annotated[
        Path | None, typer.Option("--ssl-keyfile", help="Private key of that certificate (PEM).")
    ] = None,
    root_path: Annotated[
        str,
        typer.Option(
            envvar="GRADIO_ROOT_PATH",
            help="Path of the page behind a reverse proxy, such as /speech.",
            show_default=False,
        ),
    ] = "",
) -> None:
    """Serve the page in the browser: live, files, and the model."""
    from speech.recognizer import load
    from speech.web.address import Address
    from speech.web.models import ModelRegistry, warm_up
    from speech.web.server import serve, wait

    address = Address(host, port, share, certificate, key, root_path)
    recognizer = warm_up(load(model))
    if warning := address.warning():
        typer.echo(f"speech: warning: {warning}", err=True)
    home = find_model(model)
    folders = [resources("models"), _OWN_MODELS]
    blocks = serve(ModelRegistry(recognizer, home, folders, load), address)
    public: Any = blocks.share_url
    if public:
        typer.echo(f"speech: public: {public}", err=True)
    for url in address.for_others():
        typer.echo(f"speech: for others: {url}", err=True)
    typer.echo(f"speech: open {blocks.local_url} (Ctrl+C ends it)", err=True)
    wait(blocks, recognizer)
