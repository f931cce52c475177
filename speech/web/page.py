"""What the page shows: five tabs, built with Gradio; ``static/`` draws Live, Teach and Inside."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from PIL import Image

from speech.errors import SpeechError
from speech.web.answers import ERROR_MARK, INVITATION, Answer, answer_file
from speech.web.gradio_patches import gradio as gr
from speech.web.models import ModelRegistry
from speech.web.sessions import model_settings

STATIC = Path(__file__).parent / "static"
EXAMPLES = STATIC / "examples"
DEMO = "seven_words.flac"
EXAMPLE_NAMES = {"left.wav": "Example: one word", DEMO: "Example: seven words"}
_UPLOAD_SECONDS = 300  # what people upload stays on the disk for so long at most
_PICTURES = {
    "Confusion matrix": "confusion.png",
    "Reliability": "reliability.png",
    "Learning curves": "learning_curves.png",
}
_OWN_MODEL = """The Teach tab makes one in about two minutes: name your words, record eight takes of
each, press Teach. What it saves is a zip: unpack it in `saved_models/`, and its model can be chosen
above. In a terminal it is:

```sh
speech record "lamp on" --out my_words
speech teach my_words --out saved_models/my-words
```

Every folder in `saved_models/` can be chosen above. More: `docs/use.md`.
"""
# What stands in an attribute is encoded, since neither a file's name nor a label is markup.
_MODEL_TEMPLATE = (
    '<speech-model data-speech-model="${encodeURIComponent(JSON.stringify(value))}"></speech-model>'
)
_TIMELINE_TEMPLATE = (
    '${value ? `<speech-timeline data-recording="${encodeURIComponent(JSON.stringify(value))}">'
    "</speech-timeline>` : ''}"
)
_STATUS_TEMPLATE = (
    f"<p class=\"${{value.startsWith('{ERROR_MARK}') ? 'error' : ''}}\">{{{{value}}}}</p>"
)


def build_page(registry: ModelRegistry) -> gr.Blocks:
    """The page, not yet served; its endpoint for programs is ``/recognize``."""
    blocks = gr.Blocks(title="Speech commands", delete_cache=(60, _UPLOAD_SECONDS))
    with blocks:
        gr.Markdown("# Speech commands")
        heading = gr.HTML(
            model_settings(registry.get()),
            html_template=_MODEL_TEMPLATE,
            apply_default_css=False,
            padding=False,
            elem_id="speech-model",
        )
        with gr.Tabs():
            with gr.Tab("Live"):
                gr.HTML("<speech-live></speech-live>", apply_default_css=False, padding=False)
            with gr.Tab("Teach"):
                gr.HTML("<speech-teach></speech-teach>", apply_default_css=False, padding=False)
            with gr.Tab("Inside"):
                gr.HTML("<speech-inside></speech-inside>", apply_default_css=False, padding=False)
            with gr.Tab("File", render_children=True):
                connect = _file_tab()
            with gr.Tab("Model", render_children=True):
                model = _model_tab(registry, heading)

        def recognize(
            path: str | None,
            model: str = registry.first,
            progress: gr.Progress = gr.Progress(),  # noqa: B008
        ) -> Answer:
            try:
                return answer_file(
                    registry.get(model),
                    path,
                    lambda done, total: progress(done / max(total, 1)),
                )
            except SpeechError as error:
                return Answer.of_error(str(error))

        connect(recognize, model)
    return blocks


def page_theme() -> gr.themes.Base:
    """The look of the page: the system's fonts, and text that stands out by 4.5 to 1 or more."""
    theme = gr.themes.Default(
        primary_hue="blue", font=["system-ui", "sans-serif"], font_mono=["monospace"]
    )
    return theme.set(
        body_text_color_subdued="*neutral_600",
        body_text_color_subdued_dark="*neutral_300",
        block_label_text_color="*neutral_700",
        block_label_text_color_dark="*neutral_200",
        block_info_text_color="*neutral_600",
        block_info_text_color_dark="*neutral_300",
        input_placeholder_color="*neutral_600",
        input_placeholder_color_dark="*neutral_300",
        button_primary_background_fill="*primary_700",
        button_primary_background_fill_hover="*primary_800",
        button_primary_background_fill_dark="*primary_700",
        button_primary_background_fill_hover_dark="*primary_600",
        button_primary_text_color="white",
        button_primary_text_color_dark="white",
        color_accent="*primary_700",
        link_text_color="*primary_700",
        link_text_color_dark="*primary_300",
    )


def _file_tab() -> Callable[[Callable[..., Answer], gr.Dropdown], None]:
    upload = gr.File(label="A recording", elem_id="recording", height=150)
    gr.HTML("<speech-recorder></speech-recorder>", apply_default_css=False, padding=False)
    with gr.Row():
        for file, name in EXAMPLE_NAMES.items():
            path = str(EXAMPLES / file)
            button = gr.Button(name, size="sm")
            button.click(lambda path=path: path, None, upload, api_visibility="private")
    status = _status()
    recording = gr.HTML(
        None,
        html_template=_TIMELINE_TEMPLATE,
        apply_default_css=False,
        padding=False,
        elem_id="timeline",
    )
    with gr.Row(elem_id="clip"):
        label = gr.Label(label="Probabilities", num_top_classes=12, elem_id="answer")
        with gr.Column():
            waveform = _picture("Waveform", "Waveform of the clip that was recognized")
            mfcc = _picture("MFCC", "Mel-frequency cepstral coefficients of that clip over time")

    def connect(recognize: Callable[..., Answer], model: gr.Dropdown) -> None:
        upload.change(
            recognize,
            [upload, model],
            [label, waveform, mfcc, status, recording],
            api_name="recognize",
            show_progress="minimal",
            show_progress_on=status,
            concurrency_limit=2,
        )

    return connect


def _status() -> gr.HTML:
    return gr.HTML(
        INVITATION,
        # double braces escape: the name of a file is not markup
        html_template=_STATUS_TEMPLATE,
        js_on_load="element.setAttribute('role', 'status');",
        elem_id="status",
    )


def _picture(heading: str, description: str) -> gr.Image:
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


def _model_tab(registry: ModelRegistry, heading: gr.HTML) -> gr.Dropdown:
    def show(name: str) -> tuple[Any, ...]:
        try:
            settings = model_settings(registry.get(name))
        except SpeechError as error:
            raise gr.Error(str(error), print_exception=False) from error
        return settings, registry.summary(name), registry.card(name), *pictures(name)

    def pictures(name: str) -> list[Image.Image | None]:
        paths = [registry.picture(name, file) for file in _PICTURES.values()]
        return [Image.open(path) if path else None for path in paths]

    model = gr.Dropdown(registry.names, value=registry.first, label="Model", filterable=False)
    summary = gr.Markdown(registry.summary(registry.first), elem_id="summary")
    with gr.Row(elem_id="diagrams"):
        frames = [
            gr.Image(
                image,
                show_label=False,
                alt_text=title,
                interactive=False,
                buttons=["fullscreen"],
                elem_classes="diagram",
            )
            for title, image in zip(_PICTURES, pictures(registry.first), strict=True)
        ]
    with gr.Accordion("Make a model of your own", open=False):
        gr.Markdown(_OWN_MODEL)
    card = gr.Markdown(registry.card(registry.first), elem_id="card")
    model.change(show, model, [heading, summary, card, *frames], api_visibility="private")
    return model
