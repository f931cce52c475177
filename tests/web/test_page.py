"""The page as Gradio serves it, asked by a program instead of a browser."""

from pathlib import Path

import pytest

pytest.importorskip("gradio")

from gradio_client import handle_file  # type: ignore[import-untyped]
from gradio_client.exceptions import AppError  # type: ignore[import-untyped]

from speech.web.address import Address
from speech.web.models import ModelRegistry
from speech.web.page import build_page
from speech.web.server import serve
from tests.hearing import LABELS, by_loudness
from tests.web.serving import client_of, free_port, word_file


def test_the_page_has_one_endpoint_called_recognize():
    blocks = build_page(ModelRegistry(by_loudness()))
    info = blocks.get_api_info()
    assert list(info["named_endpoints"]) == ["/recognize"]
    assert blocks.delete_cache == (60, 300)
    assert not blocks.analytics_enabled


# gradio 6.31 counts its requests with what pandas 3 deprecates
@pytest.mark.filterwarnings("ignore:'future.no_silent_downcasting' is deprecated")
@pytest.mark.filterwarnings("ignore:The copy keyword is deprecated")
def test_a_program_can_ask_the_page(tmp_path, monkeypatch, capfd):
    monkeypatch.setenv("HF_HUB_DISABLE_TELEMETRY", "1")
    blocks = serve(ModelRegistry(by_loudness()), Address(port=free_port()))
    try:
        client = client_of(str(blocks.local_url))
        label, waveform, mfcc, status, recording = client.predict(
            handle_file(word_file(tmp_path)), api_name="/recognize"
        )
        with pytest.raises(AppError, match="not in the list of choices"):
            client.predict(
                handle_file(word_file(tmp_path)), model="../commands-8", api_name="/recognize"
            )
    finally:
        blocks.close(verbose=False)
    assert "timeline" not in recording
    assert label["label"] == "yes"
    assert {entry["label"] for entry in label["confidences"]} == set(LABELS)
    assert Path(waveform).is_file()
    assert Path(mfcc).is_file()
    assert status == "yes, 97 %"
    assert capfd.readouterr().out == ""
