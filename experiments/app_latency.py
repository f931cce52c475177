"""How soon is a word on the page, what does a live session cost, and how soon is the page there?

python experiments/app_latency.py [--rounds N] [--markdown FILE]

Each round starts `python app.py`, opens the page in Chromium, lets the browser's microphone say the
seven synthesised words that come along, twice, and notes when the Live tab shows which word. The
end of a word is looked for in the very samples that the page sent, so that what the browser's fake
microphone does before does not count, and what the page, the server and the network do, does.
Wants the extras app and dev, and Chromium.
"""

import argparse
import base64
import os
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from make_screenshot import speaking_browser
from playwright.sync_api import Page

from speech.files import write_text

HEADING = "## The page in the browser"
APP = Path(__file__).parents[1] / "app.py"
WARM_UP_SECONDS = 9.0  # the server draws its first pictures meanwhile
SECONDS = 32.0  # the words twice
FRAME = 0.01
LOUD = 0.03  # of the peak: 30 dB below it
PAUSE = 0.4  # within a word it is shorter
REACH = 1.5  # a word is shown so soon after its end, or it was another sound

# Keeps what the page sends, and when each row of its history appeared, in the clock of the sound.
SPY = """
window.sent = []; window.shown = [];
const ask = window.fetch;
window.fetch = (url, options) => {
  if (options?.body instanceof Blob) window.sent.push(options.body);
  return ask(url, options);
};
window.watchHistory = () => {
  const live = document.querySelector("speech-live");
  live.addEventListener("speech-detection", ({ detail }) => window.shown.push(
    [performance.now() / 1000 - live.offset, detail.time, detail.label]));
};
"""
READ = """async () => {
  const bytes = new Uint8Array(await new Blob(window.sent).arrayBuffer());
  let text = "";
  for (let i = 0; i < bytes.length; i += 32768)
    text += String.fromCharCode(...bytes.subarray(i, i + 32768));
  const { rate, dataset } = document.querySelector("speech-live");
  return { pcm: btoa(text), rate, shown: window.shown, dropped: Number(dataset.dropped) };
}"""


def main() -> None:
    """Measure, print, and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--markdown", type=Path, help="also end this page with the figures")
    options = parser.parse_args()
    rounds = [measure() for _ in range(options.rounds)]
    delays = [delay for one in rounds for delay in one["delays"]]
    rows = [
        ("From the end of a word to the word on the page, median", 1e3 * np.median(delays), "ms"),
        ("The same, 95th percentile", 1e3 * np.percentile(delays, 95), "ms"),
        *(
            (what, statistics.median(one[key] for one in rounds), unit)
            for what, key, unit in (
                ("A live session, of one core, the server's share", "load", "%"),
                ("From `python app.py` to a page with its button", "start", "s"),
                ("Sound dropped, since the machine fell behind", "dropped", "s"),
            )
        ),
    ]
    text = page(rows, rounds, delays)
    print(text)
    if options.markdown is not None:
        before = options.markdown.read_text("utf-8").partition(HEADING)[0]
        write_text(options.markdown, before.rstrip() + "\n\n" + text)


def page(
    rows: Sequence[tuple[str, float, str]],
    rounds: Sequence[dict[str, Any]],
    delays: Sequence[float],
) -> str:
    """The figures as Markdown."""
    spread = f"{1e3 * min(delays):.0f} to {1e3 * max(delays):.0f} ms"
    each = "; ".join(f"{one['load']:.1f} %, {one['start']:.1f} s" for one in rounds)
    return "\n".join(
        [
            HEADING,
            "",
            f"Made by `python experiments/app_latency.py --rounds {len(rounds)} --markdown "
            f"docs/performance.md`: Chromium "
            f"and the server on one machine of {os.cpu_count()} cores, {len(delays)} words shown "
            f"({spread}); session and start of each round: {each}.",
            "",
            "| What | Measured |",
            "| --- | ---: |",
            *(f"| {what} | {value:.3g} {unit} |" for what, value, unit in rows),
            "",
        ]
    )


def measure() -> dict[str, Any]:
    """One round: delays in seconds, load in percent, start and dropped in seconds."""
    with speaking_browser() as browser, served() as (process, address, began):
        tab = browser.new_page()
        tab.set_default_timeout(120_000)
        tab.add_init_script(SPY)
        open_when_there(tab, address)
        start = time.perf_counter() - began
        # what the server does once is not what a session costs
        time.sleep(WARM_UP_SECONDS)
        spent, clock = processor_seconds(process.pid), time.perf_counter()
        tab.get_by_role("button", name="Start listening").click()
        tab.evaluate("window.watchHistory()")
        tab.wait_for_function(f"document.querySelector('speech-live').captured > {SECONDS}")
        clock = time.perf_counter() - clock
        load = 100 * (processor_seconds(process.pid) - spent) / clock
        found = tab.evaluate(READ)
    pcm = np.frombuffer(base64.b64decode(found["pcm"]), "<i2") / 32768
    ends = word_ends(pcm, found["rate"])
    delays = []
    for shown, at, _label in found["shown"]:
        before = [end for end in ends if at - REACH < end < at + PAUSE]
        if before:
            delays.append(shown - before[-1])
    return {"delays": delays, "load": load, "start": start, "dropped": found["dropped"]}


@contextmanager
def served() -> Iterator[tuple[subprocess.Popen[bytes], str, float]]:
    """The app as people start it: process, address, and when that was."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    began = time.perf_counter()
    command = [sys.executable, str(APP), "--port", str(port)]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    try:
        yield process, f"http://127.0.0.1:{port}/", began
    finally:
        process.terminate()
        process.wait()


def open_when_there(tab: Page, address: str) -> None:
    """Load the page as soon as somebody answers, until it can be used."""
    port = int(address.rstrip("/").rpartition(":")[2])
    while True:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                break
        time.sleep(0.02)
    tab.goto(address)
    tab.locator(".live-button").wait_for()
    tab.locator("speech-model p").wait_for()


def processor_seconds(pid: int) -> float:
    """User and system time of a process so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def word_ends(pcm: npt.NDArray[np.float64], rate: float) -> list[float]:
    """When each word ends, in seconds of these samples."""
    size = round(FRAME * rate)
    frames = pcm[: len(pcm) // size * size].reshape(-1, size)
    level = np.sqrt(np.mean(frames**2, axis=1))
    loud = np.flatnonzero(level > LOUD * level.max())
    last = np.flatnonzero(np.diff(loud, append=len(level) + round(PAUSE / FRAME)) * FRAME > PAUSE)
    return [float((loud[i] + 1) * FRAME) for i in last]


if __name__ == "__main__":
    main()
