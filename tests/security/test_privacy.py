"""Privacy: no audio on disk unless asked for, and no request to anybody.

An audit hook sees every file that Python opens for writing and every address that it connects to;
what libraries do beside Python shows in the home folder, which has to stay empty: there ONNX
Runtime keeps the number of the device, and what it means to send, unless it is told not to.
"""

import json
import os
import socket
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest

from tests.conftest import PROJECT, write
from tests.security.conftest import MODEL

WATCHED = """
    import json, os, sys
    seen = {"written": [], "network": []}
    def watch(event, args):
        if event == "open":
            path, mode, flags = args
            writes = (flags or 0) & (os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_APPEND)
            if writes or (mode and set(mode) & set("wax+")):
                seen["written"].append(str(path))
        elif event in ("socket.connect", "socket.getaddrinfo", "socket.bind", "socket.sendto",
                       "urllib.Request", "http.client.connect"):
            seen["network"].append([event, str(args[1:])[:100]])
        elif event in ("os.rename", "os.mkdir", "shutil.copyfile", "sqlite3.connect"):
            seen["written"].append(str(args))
        elif event in ("subprocess.Popen", "os.system", "os.exec", "os.posix_spawn"):
            seen["network"].append([event, str(args)[:200]])
    sys.addaudithook(watch)
    sys.argv = ["speech", *sys.argv[1:]]
    status = 0
    try:
        from speech.cli.main import main
        main()
    except SystemExit as end:
        status = end.code
    print(json.dumps([status, seen]), file=sys.stderr)
"""


# on such machines ONNX Runtime tells nothing of its own accord
BUILDERS = ("CI", "GITHUB_ACTIONS", "GITLAB_CI", "TF_BUILD", "JENKINS_URL", "PYTEST_CURRENT_TEST")


def watched(*arguments: object, **environment: str) -> tuple[list[str], list[object], str]:
    """What a command has written and asked, and what it said."""
    own = {name: value for name, value in os.environ.items() if name not in BUILDERS}
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(WATCHED), *map(str, arguments)],
        capture_output=True,
        text=True,
        cwd=PROJECT,
        env=own | {"PYTHONDONTWRITEBYTECODE": "1"} | environment,
    )
    status, seen = json.loads(done.stderr.splitlines()[-1])
    assert not status, done.stderr
    written = [path for path in seen["written"] if not path.startswith("/dev/")]
    return written, seen["network"], done.stdout


@pytest.fixture(scope="module")
def clip(tmp_path_factory) -> Path:
    path: Path = tmp_path_factory.mktemp("clip") / "clip.wav"
    write(path, np.random.default_rng(0).normal(0, 0.05, 48_000))
    return path


@pytest.mark.parametrize(
    "command",
    [
        ["recognize", "{clip}", "--json", "--model", "{model}"],
        ["listen", "--wav", "{clip}", "--json", "--model", "{model}"],
        ["scan", "{clip}", "--json", "--model", "{model}"],
        ["info", "{model}"],
    ],
    ids=lambda command: command[0],
)
def test_a_command_that_hears_writes_nothing_and_asks_nobody(command, clip, tmp_path):
    filled = [part.format(clip=clip, model=MODEL) for part in command]
    before = sorted(clip.parent.iterdir())
    written, network, _ = watched(*filled, TMPDIR=str(tmp_path), HOME=str(tmp_path))
    assert not written
    assert not network
    assert sorted(clip.parent.iterdir()) == before
    assert not list(tmp_path.rglob("*"))


def test_what_is_asked_for_is_written_there_and_nowhere_else(clip, tmp_path):
    asked = tmp_path / "found.csv"
    written, network, _ = watched("scan", clip, "--model", MODEL, "--csv", asked)
    assert not network
    assert written
    assert all(str(tmp_path) in path for path in written)
    assert [p.name for p in tmp_path.iterdir()] == ["found.csv"]


def test_the_hook_sees_a_file_and_a_request():
    """So that the tests above can fail."""
    program = textwrap.dedent(WATCHED).replace("from speech.cli.main import main", "").replace(
        "main()",
        "open(sys.argv[1], 'w').close()\n"
        "    import socket\n"
        "    socket.socket().connect_ex(('127.0.0.1', 9))",
    )  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-c", program, os.devnull], capture_output=True, text=True, check=True
    )
    _, seen = json.loads(done.stderr.splitlines()[-1])
    assert os.devnull in seen["written"]
    assert [event for event, _ in seen["network"]] == ["socket.connect"]


# --- the page ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """The address of the page, with a recogniser without a network behind it."""
    pytest.importorskip("gradio")
    from speech.web import server
    from speech.web.address import Address
    from speech.web.models import ModelRegistry
    from tests.hearing import by_loudness

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GRADIO_TEMP_DIR", str(tmp_path_factory.mktemp("gradio")))
        patch.setattr(server, "MAX_MEGABYTES", 1)  # the real limit takes a minute to exceed
        blocks = server.serve(ModelRegistry(by_loudness()), Address(port=port))
        try:
            yield str(blocks.local_url).rstrip("/"), port
        finally:
            blocks.close(verbose=False)


def test_the_page_is_served_to_this_machine_only(page):
    _, port = page
    listening = [line.split()[1] for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    addresses = [each.split(":")[0] for each in listening if int(each.split(":")[1], 16) == port]
    assert "0100007F" in addresses  # 127.0.0.1
    assert "00000000" not in addresses


@pytest.mark.parametrize(
    "path",
    [
        *("/etc/passwd", "../../../../etc/passwd", "app.py", "./speech/audio.py", "~/.bashrc"),
        *("//etc/passwd", "%2Fetc%2Fpasswd", "..%2f..%2f..%2fetc%2fpasswd", "/proc/self/environ"),
        *("file:///etc/passwd", "/etc/./passwd", "\\etc\\passwd", "saved_models/../app.py"),
    ],
)
def test_a_path_outside_the_page_is_refused(page, path):
    import httpx

    address, _ = page
    for route in ("/gradio_api/file=", "/file=", "/gradio_api/stream/", "/static/", "/assets/"):
        answer = httpx.get(f"{address}{route}{path}", timeout=60)
        assert answer.status_code in (403, 404, 405, 422), (route, path)
        assert b"root:" not in answer.content
        assert b"import gradio" not in answer.content


def test_an_upload_that_is_too_big_is_refused(page):
    import httpx

    address, _ = page
    big = bytes(3 << 20)
    answer = httpx.post(
        f"{address}/gradio_api/upload", files={"files": ("a.wav", big)}, timeout=120
    )
    assert answer.status_code == 413, answer.text[:200]


def test_the_page_does_not_fetch_an_address_for_somebody(page):
    import httpx

    address, _ = page
    for url in ("http://127.0.0.1:1/x", "http://169.254.169.254/latest/meta-data"):
        answer = httpx.get(f"{address}/gradio_api/proxy={url}", timeout=60)
        assert answer.status_code in (400, 403, 404), url
