"""The command that serves wake words: ``speech wyoming``, for Home Assistant."""

import contextlib
import signal
from typing import Annotated

import typer

from speech.cli import options
from speech.cli.console import warn
from speech.cli.options import DEFAULT_MODEL, examples

app = typer.Typer()


@app.command(
    epilog=examples("speech wyoming", "speech wyoming --uri tcp://0.0.0.0:10400 --zeroconf kitchen")
)
def wyoming(
    uri: Annotated[str, typer.Option(help="Address to listen at.")] = "tcp://127.0.0.1:10400",
    model: options.ModelOption = DEFAULT_MODEL,
    threshold: options.Threshold = None,
    zeroconf: Annotated[
        str,
        typer.Option(
            metavar="NAME",
            help="Announce the service by this name, so that Home Assistant finds it.",
            show_default=False,
        ),
    ] = "",
) -> None:
    """Serve the commands as wake words to Home Assistant (Wyoming protocol). Ctrl-C ends it."""
    import asyncio

    import speech
    from speech.live.wyoming import Announcement, WakeService, serve
    from speech.recognizer import load
    from speech.web.address import is_loopback, own_numbers

    host = uri.removeprefix("tcp://").rpartition(":")[0]
    announcement = None
    if zeroconf:
        numbers = own_numbers()
        if is_loopback(host) or not numbers:
            raise typer.BadParameter(
                f"expected --uri with an address at which others reach this machine, got {uri}; "
                "choose tcp://0.0.0.0:10400, on a machine with a network"
            )
        announcement = Announcement(zeroconf, numbers)
    service = WakeService(load(model), speech.__version__, threshold, warn)

    def on_ready(address: str) -> None:
        if not is_loopback(host):
            warn(f"warning: others on the network can send sound to {address}, without a password")
        warn(f"wake words {', '.join(service.words)} at {address}; Ctrl-C ends it")

    async def until_stopped() -> None:
        task = asyncio.current_task()
        assert task is not None
        # a service manager's stop ends it as Ctrl-C does, which asyncio takes care of itself
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
        await serve(service, uri, on_ready, announcement)

    with contextlib.suppress(KeyboardInterrupt, asyncio.CancelledError):
        asyncio.run(until_stopped())
