"""What does the exported page weigh, how soon does it listen, and what does listening cost?

python experiments/web_page.py [--model MODEL] [--rounds N] [--markdown FILE]

Each round opens the page of ``speech export --to web`` in a fresh Chromium, from a plain server of
static files on this machine. Its microphone says the seven synthesized words that come along, again
and again, the first one at once. Times count from the moment at which the address is opened; Start
is pressed as soon as there is such a button. The share of a core is the processor time of the
page's process while it listens, with its worker and its sound thread, and beside it that of all
processes of the browser. Where the machine has other work, which is shown too, all takes longer,
also in processor time. Wants the extra dev, and Chromium, and Linux.
"""

import argparse
import gzip
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import soundfile
from make_screenshot import WORDS, speaking_browser
from playwright.sync_api import Page

from speech.evaluation.markdown import table
from speech.files import write_text
from speech.installation import find_model
from speech.web.export import export_page

SETTLING, SECONDS = 12.0, 20.0  # compilers are done by then; how long the cost is looked at
BEGIN = 1.15  # seconds of the recording before its first word


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_: Any) -> None:
        """Nothing."""


@contextmanager
def served(folder: Path) -> Iterator[str]:
    """The address of a folder."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(_Quiet, directory=str(folder)))
    Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}/"
    server.shutdown()


def sizes(folder: Path) -> tuple[int, int]:
    """Bytes of all files, and of all of them as servers compress them."""
    contents = [path.read_bytes() for path in folder.rglob("*") if path.is_file()]
    return sum(map(len, contents)), sum(len(gzip.compress(content, 9)) for content in contents)


def cpu_seconds(session: Any) -> tuple[float, float]:
    """Processor time so far of the processes of pages, and of all processes of the browser."""
    processes = session.send("SystemInfo.getProcessInfo")["processInfo"]
    pages = [process["cpuTime"] for process in processes if process["type"] == "renderer"]
    return sum(pages), sum(process["cpuTime"] for process in processes)


def busy_seconds() -> float:
    """Processor time of the whole machine so far; Linux only."""
    fields = Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:]
    user, nice, system, _idle, _waiting, *interrupts = map(int, fields[:8])
    return (user + nice + system + sum(interrupts)) / os.sysconf("SC_CLK_TCK")


def one_round(address: str, recording: Path) -> dict[str, float]:
    """The figures of one visit."""
    with speaking_browser(recording) as browser:
        session = browser.new_browser_cdp_session()
        page = browser.new_page(viewport={"width": 1280, "height": 844}, bypass_csp=True)
        began = time.perf_counter()
        page.goto(address)
        page.get_by_role("button", name="Start listening").click()
        ready = time.perf_counter() - began
        page.locator("speech-live[data-state=listening]").wait_for()
        listening = time.perf_counter() - began
        page.locator("speech-live tr.detection").first.wait_for()
        detected = time.perf_counter() - began
        own, whole, others = shares(session, page)
        dropped = float(page.locator("speech-live").get_attribute("data-dropped") or 0)
        page.close()
        page = browser.new_page(bypass_csp=True)
        page.goto(f"{address}icon.svg")
        page.evaluate("import('/speech-commands.js').then(({ listen }) => listen())")
        bare, *_ = shares(session, page)
    return {
        "ready": ready, "listening": listening, "detected": detected,
        "own": own, "whole": whole, "bare": bare, "dropped": dropped, "others": others,
    }  # fmt: skip


def shares(session: Any, page: Page) -> list[float]:
    """Of a core: the page, the browser, and all else on the machine, from a while after now on."""
    page.wait_for_timeout(1000 * SETTLING)
    before, at = (*cpu_seconds(session), busy_seconds()), time.perf_counter()
    page.wait_for_timeout(1000 * SECONDS)
    after, seconds = (*cpu_seconds(session), busy_seconds()), time.perf_counter() - at
    own, whole, machine = ((b - a) / seconds for a, b in zip(before, after, strict=True))
    return [own, whole, machine - whole]


def rows(rounds: list[dict[str, float]], raw: int, packed: int) -> list[tuple[str, str]]:
    """What was measured, with the range over the rounds."""

    def of(name: str, show: Callable[[float], str]) -> str:
        values = [one[name] for one in rounds]
        low, high = show(min(values)), show(max(values))
        return f"{show(statistics.median(values))} ({low} to {high})"

    def seconds(value: float) -> str:
        return f"{value:.2f} s"

    def share(value: float) -> str:
        return f"{100 * value:.1f} %"

    return [
        ("all files", f"{raw / 1e6:.1f} MB"),
        ("all files, gzip", f"{packed / 1e6:.1f} MB"),
        ("until Start can be pressed", of("ready", seconds)),
        ("until it listens", of("listening", seconds)),
        ("until the first word is shown, which is said for half a second", of("detected", seconds)),
        ("of a core while it listens, the page with its worker", of("own", share)),
        ("of a core while it listens, all of the browser, drawing by software", of("whole", share)),
        ("of a core while listen() does, which draws nothing", of("bare", share)),
        (f"other work meanwhile, of {os.cpu_count()} cores", of("others", share)),
        ("sound dropped", of("dropped", seconds)),
    ]  # fmt: skip


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", type=find_model, default=find_model("commands-8"))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--markdown", type=Path, help="write the table to this file too")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        page = export_page(options.model, Path(scratch) / "page").path
        samples, rate = soundfile.read(WORDS)
        words = Path(scratch) / "words.wav"
        soundfile.write(words, samples[round(BEGIN * rate) :], rate)
        with served(page) as address:
            rounds = [one_round(address, words) for _ in range(options.rounds)]
        text = table(["", "measured"], rows(rounds, *sizes(page)))
    print(text)
    if options.markdown:
        write_text(options.markdown, text)


if __name__ == "__main__":
    main()
