"""Behind a reverse proxy: the page below a path of another server."""

import httpx
import pytest

pytest.importorskip("gradio")

from gradio_client import handle_file  # type: ignore[import-untyped]

from speech.errors import SpeechError
from speech.web.address import Address
from speech.web.models import ModelRegistry
from speech.web.server import serve
from tests.hearing import LABELS, by_loudness
from tests.web.proxy import proxied
from tests.web.serving import client_of, free_port, word_file

# gradio 6.31 counts its requests with what pandas 3 deprecates
pytestmark = [
    pytest.mark.filterwarnings("ignore:'future.no_silent_downcasting' is deprecated"),
    pytest.mark.filterwarnings("ignore:The copy keyword is deprecated"),
]


@pytest.mark.parametrize("strips", [True, False])
def test_below_a_path_of_a_proxy_uploads_and_live_sound_are_answered(tmp_path, monkeypatch, strips):
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path))
    port = free_port()
    blocks = serve(ModelRegistry(by_loudness()), Address(port=port, root_path="/a/speech/"))
    try:
        with proxied(port, "/a/speech", strips) as address:
            page = httpx.get(f"{address}/", timeout=60)
            assert page.status_code == 200
            assert f'"root":"{address}"' in page.text.replace(" ", "")
            client = client_of(f"{address}/")
            label, *_ = client.predict(handle_file(word_file(tmp_path)), api_name="/recognize")
            assert label["label"] == "yes"
            live = httpx.post(f"{address}/live", json={}, timeout=60)
            assert live.json()["labels"] == list(LABELS)
    finally:
        blocks.close(verbose=False)


def test_a_root_path_without_a_slash_is_refused(refused):
    message = refused(SpeechError, Address(root_path="speech").check)
    assert "begin it with a slash" in message
