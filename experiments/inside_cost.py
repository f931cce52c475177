"""What does it cost to look inside the network while one speaks?

python experiments/inside_cost.py [--rounds N] [--markdown FILE]

Each round starts `python app.py`, opens the Inside tab in a fresh Chromium whose microphone says
the seven synthesized words that come along, again and again, and looks inside live. The share of a
core is that of the server, and beside it that of the process of the page, which draws and has the
thread of the sound, before and while one looks. Wants the extras app and dev, and Chromium.
"""

import argparse
import statistics
import time
from pathlib import Path

from app_latency import open_when_there, processor_seconds, served
from make_screenshot import speaking_browser
from web_page import cpu_seconds

from speech.evaluation.markdown import table
from speech.files import write_text

ROWS = {
    "server, % of a core": 100,
    "page, % of a core": 100,
    "both, % of a core": 100,
    "all of the browser, drawing by software, % of a core": 100,
    "answers a second": 1,
}  # and by how much the amounts are multiplied
SETTLING, SECONDS = 9.0, 20.0  # what comes once is over; how long the cost is looked at


def one_round() -> dict[str, float]:
    """Shares of a core, and pictures in a second."""
    with speaking_browser() as browser, served() as (process, address, _began):
        session = browser.new_browser_cdp_session()
        page = browser.new_page(viewport={"width": 1280, "height": 844})
        page.set_default_timeout(120_000)
        pictures: list[str] = []
        page.on("requestfinished", lambda request: pictures.append(request.url))

        def shares() -> dict[str, float]:
            page.wait_for_timeout(1000 * SETTLING)
            pictures.clear()
            spent, at = (processor_seconds(process.pid), *cpu_seconds(session)), time.perf_counter()
            page.wait_for_timeout(1000 * SECONDS)
            now, count = (processor_seconds(process.pid), *cpu_seconds(session)), len(pictures)
            seconds = time.perf_counter() - at
            used = [after - before for after, before in zip(now, spent, strict=True)]
            amounts = (used[0], used[1], used[0] + used[1], used[2], count)
            return {name: amount / seconds for name, amount in zip(ROWS, amounts, strict=True)}

        open_when_there(page, address)
        page.get_by_role("tab", name="Inside").click()
        before = shares()
        page.get_by_role("button", name="Look inside live").click()
        page.locator(".inside-panels canvas").first.wait_for()
        during = shares()
    return {f"{name}, before": value for name, value in before.items()} | during


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--markdown", type=Path, help="write the table to this file too")
    options = parser.parse_args()
    rounds = [one_round() for _ in range(options.rounds)]
    rows = []
    for name, factor in ROWS.items():
        cells = []
        for key in (f"{name}, before", name):
            values = [factor * one[key] for one in rounds]
            spread = f"({min(values):.1f} to {max(values):.1f})"
            cells.append(f"{statistics.median(values):.1f} {spread}")
        rows.append((name, *cells))
    text = table(["", "before", "while one looks inside live"], rows)
    print(text)
    if options.markdown:
        write_text(options.markdown, text)


if __name__ == "__main__":
    main()
