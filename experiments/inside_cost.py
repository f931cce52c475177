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

SETTLING, SECONDS = (
    9.0,
    20.0,
)  # what server and page do once is over; how long the cost is looked at


def one_round() -> dict[str, float]:
    """Shares of a core, and pictures in a second."""
    with speaking_browser() as browser, served() as (process, address, _began):
        session = browser.new_browser_cdp_session()
        page = browser.new_page(viewport={"width": 1280, "height": 844})
        page.set_default_timeout(120_000)
        open_when_there(page, address)
        page.get_by_role("tab", name="Inside").click()
        page.get_by_role("button", name="Look inside live").click()
        page.locator(".inside-panels canvas").first.wait_for()
        page.wait_for_timeout(1000 * SETTLING)
        pictures: list[str] = []
        page.on("requestfinished", lambda request: pictures.append(request.url))
        server, at = processor_seconds(process.pid), time.perf_counter()
        own, whole = cpu_seconds(session)
        page.wait_for_timeout(1000 * SECONDS)
        own, whole = (
            now - then for now, then in zip(cpu_seconds(session), (own, whole), strict=True)
        )
        server, seconds = processor_seconds(process.pid) - server, time.perf_counter() - at
    shares = {"server": server, "page": own, "both": server + own, "whole": whole}
    return {name: value / seconds for name, value in (shares | {"pictures": len(pictures)}).items()}


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--markdown", type=Path, help="write the table to this file too")
    options = parser.parse_args()
    rounds = [one_round() for _ in range(options.rounds)]
    rows = []
    for name, what, unit, factor in (
        ("server", "of a core, the server", " %", 100),
        ("page", "of a core, the page", " %", 100),
        ("both", "of a core, both", " %", 100),
        ("whole", "of a core, all of the browser, drawing by software", " %", 100),
        ("pictures", "pictures in a second", "", 1),
    ):
        values = [factor * one[name] for one in rounds]
        spread = f"({min(values):.1f} to {max(values):.1f})"
        rows.append((what, f"{statistics.median(values):.1f}{unit} {spread}"))
    text = table(["", "measured"], rows)
    print(text)
    if options.markdown:
        write_text(options.markdown, text)


if __name__ == "__main__":
    main()
