"""The recogniser in a browser: record or upload a word, see what it heard and how sure it is."""

import argparse
import io
import ipaddress
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"  # is read when Gradio is imported

import gradio as gr
import numpy as np
from matplotlib.figure import Figure
from PIL import Image

from speech import plots
from speech.audio import FORMATS, Waveform, fit_length, load_audio
from speech.errors import SpeechError
from speech.recognizer import Recognizer, load

DEFAULT_MODEL = Path(__file__).parent / "saved_models" / "commands-8"
MAX_UPLOAD = "50mb"  # a minute, the longest that load_audio takes, in studio quality
MARK = "⚠"
INVITATION = f"Record one word, or upload it as {FORMATS}."
# Set in the width of a telephone, so that the words in a picture stay legible there.
FIGSIZE = (5.0, 2.7)
PIXELS_PER_INCH = 240

# The browser's echo cancellation, noise suppression and gain control are made for calls; they
# change the sound so much that the network would hear something else than it was trained on.
RAW_MICROPHONE = """<script>
if (navigator.mediaDevices) {
  const open = navigator.mediaDevices.getUserMedia.bind(navigator.mediaDevices);
  const raw = {echoCancellation: false, noiseSuppression: false, autoGainControl: false};
  navigator.mediaDevices.getUserMedia = (wanted) => open(
    wanted?.audio ? {...wanted, audio: {...Object(wanted.audio), ...raw}} : wanted
  );
}
</script>"""

CSS = """
#status p { margin: 0; }
#status p.error { color: var(--error-icon-color); font-weight: 600; }
#answer h2 { font-size: 3rem; }
#answer .bar { height: 8px; }
.picture .icon-button-wrapper { display: none; }
:focus-visible { outline: 3px solid var(--color-accent); outline-offset: 2px; }
"""


class Answer(NamedTuple):
    """What the page shows for one recording: the values of its four outputs.

    Attributes:
        probabilities: Probability of each label, or None where nothing was recognised.
        waveform: Picture of the clip that the network heard.
        mfcc: Picture of that clip's features.
        status: One sentence for the user; an error begins with ``MARK``.
    """

    probabilities: dict[str, float] | None
    waveform: Image.Image | None
    mfcc: Image.Image | None
    status: str


def answer(recognizer: Recognizer, path: str | None) -> Answer:
    """Recognise the recording in a file; whatever is wrong with it becomes the status."""
    if path is None:
        return Answer(None, None, None, INVITATION)
    try:
        waveform = load_audio(path, recognizer.features.sample_rate)
        return answer_waveform(recognizer, waveform)
    except SpeechError as error:
        # the folder is a temporary one of the server and means nothing to the user
        message = str(error).replace(path, Path(path).name)
        return Answer(None, None, None, f"{MARK} {message}")


def answer_waveform(recognizer: Recognizer, waveform: Waveform) -> Answer:
    """Recognise samples (n,) at the model's rate, and draw what the network heard."""
    features = recognizer.features
    clip = fit_length(waveform, features.n_samples)
    prediction = recognizer.recognize_waveform(clip)
    seconds = len(waveform) / features.sample_rate
    status = f"Heard {seconds:.2f} s."
    if len(waveform) > len(clip):
        status = f"Of {seconds:.2f} s, this is the loudest {features.clip_seconds:g} s."
    return Answer(
        prediction.probabilities,
        _picture(plots.waveform(clip, features.sample_rate, figsize=FIGSIZE)),
        _picture(plots.mfcc_image(recognizer.mfcc(clip[None])[0], features, figsize=FIGSIZE)),
        status,
    )


def _picture(figure: Figure) -> Image.Image:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=PIXELS_PER_INCH)
    return Image.open(buffer)


def build_app(recognizer: Recognizer) -> gr.Blocks:
    """The page, not yet served; its endpoint is ``/recognize``."""
    words = ", ".join(f"**{label}**" for label in recognizer.labels)

    def recognize(path: str | None) -> Answer:
        return answer(recognizer, path)

    # what people said stays on the disk for five minutes at most
    blocks = gr.Blocks(title="Speech commands", delete_cache=(60, 300))
    with blocks:
        gr.Markdown(f"# Speech commands\n\nThe model `{recognizer.name}` tells apart {words}.")
        with gr.Row():
            with gr.Column():
                audio = gr.Audio(
                    sources=["microphone", "upload"],
                    type="filepath",
                    label="One spoken word",
                    buttons=["download"],
                    elem_id="recording",
                )
                status = _status()
                label = gr.Label(label="Probabilities", num_top_classes=10, elem_id="answer")
            with gr.Column():
                waveform = _frame("Waveform", "Waveform of the clip that was recognised")
                features = _frame(
                    "MFCC", "Mel-frequency cepstral coefficients of that clip over time"
                )
        audio.change(
            recognize,
            audio,
            [label, waveform, features, status],
            api_name="recognize",
            show_progress="minimal",
            show_progress_on=label,
        )
    return blocks


def _status() -> gr.HTML:
    return gr.HTML(
        INVITATION,
        # double braces escape: the name of a file is not markup
        html_template=(
            f"<p class=\"${{value.startsWith('{MARK}') ? 'error' : ''}}\">{{{{value}}}}</p>"
        ),
        js_on_load="element.setAttribute('role', 'status');",
        elem_id="status",
    )


def _frame(heading: str, description: str) -> gr.Image:
    gr.Markdown(f"## {heading}")  # not Gradio's label, which would cover a corner of the picture
    return gr.Image(
        show_label=False,
        alt_text=description,
        format="png",
        type="pil",
        interactive=False,
        buttons=[],
        elem_classes="picture",
    )


def serve(recognizer: Recognizer, host: str, port: int, *, debug: bool = False) -> gr.Blocks:
    """Build the page and serve it from a thread; ``close()`` of the result ends that.

    Raises:
        SpeechError: Nothing can listen at that address.
    """
    blocks = build_app(recognizer)
    fonts = ["system-ui", "sans-serif"]
    try:
        blocks.launch(
            server_name=host,
            server_port=port,
            prevent_thread_lock=True,
            quiet=True,
            show_error=debug,
            share=False,
            ssr_mode=False,
            run_history=False,
            enable_monitoring=False,
            footer_links=[],
            max_file_size=MAX_UPLOAD,
            theme=gr.themes.Default(primary_hue="blue", font=fonts, font_mono=["monospace"]),
            css=CSS,
            head=RAW_MICROPHONE,
        )
    except OSError as error:
        raise SpeechError(
            f"expected an address to listen at, got {host} port {port}, which is taken or not of "
            "this machine; choose another with --port or --host"
        ) from error
    return blocks


def main(argv: Sequence[str] | None = None) -> int:
    """Serve the page until interrupted; returns the exit status."""
    options = _parse(argv)
    # Gradio asks its own server whether it is there, which is nothing for a proxy
    os.environ["NO_PROXY"] = "*"
    try:
        recognizer = load(options.model)
        # the first clip compiles the front end and traces the network: nobody should wait for it
        answer_waveform(recognizer, np.zeros(recognizer.features.n_samples, np.float32))
        if not _is_loopback(options.host):
            _say(
                f"warning: --host {options.host} lets others on the network use this page, without "
                "a password; their browsers allow it no microphone unless a proxy adds HTTPS"
            )
        blocks = serve(recognizer, options.host, options.port, debug=options.debug)
    except SpeechError as error:
        if options.debug:
            raise
        _say(str(error))
        return error.exit_code
    _say(f"open {blocks.local_url} (Ctrl+C ends it)")
    # a service manager's stop must clean up as Ctrl+C does
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    blocks.block_thread()
    return 0


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="app.py", description=__doc__)
    add: Any = parser.add_argument
    add("--model", type=Path, default=DEFAULT_MODEL, help="folder of a model, or its file")
    add("--host", default="127.0.0.1", help="address to listen at (default: %(default)s)")
    add("--port", type=_port, default=7860, help="port to listen at (default: %(default)s)")
    add("--debug", action="store_true", help="show tracebacks")
    return parser.parse_args(argv)


def _port(text: str) -> int:
    if text.isdecimal() and 0 < int(text) < 65_536:
        return int(text)
    raise argparse.ArgumentTypeError(f"expected a port from 1 to 65535, got {text}")


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == "localhost"


def _say(message: str) -> None:
    sys.stderr.write(f"app.py: {message}\n")


if __name__ == "__main__":
    sys.exit(main())
