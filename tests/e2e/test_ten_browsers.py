"""Ten browsers listen at once. It takes minutes on two cores, and so is a campaign."""

import gc
import statistics
from pathlib import Path

import pytest

from tests.e2e.test_browser_live import expect_words, pytestmark, speech, start, stop
from tests.security.conftest import record

__all__ = ["pytestmark", "record"]
SESSIONS = 10


def resident() -> float:
    """Of this process, which is the server, in MB."""
    lines = Path("/proc/self/status").read_text("utf-8").splitlines()
    status = dict(line.split(":", 1) for line in lines)
    return int(status["VmRSS"].split()[0]) / 1e3


@pytest.mark.campaign
def test_ten_browsers_at_once_are_each_heard_in_turn(open_page, speaking, tones_address, record):
    order = ("low", "high")
    spoken = [tuple(order[(i >> k) & 1] for k in range(4)) for i in range(SESSIONS)]
    calm = {"reduced_motion": "reduce"}  # ten pages that paint would leave no processor to hear
    pages = [
        open_page(tones_address, speaking(speech(words), f"session {i}"), **calm)
        for i, words in enumerate(spoken)
    ]
    gc.collect()
    before = resident()
    for page in pages:
        start(page)
    for page, words in zip(pages, spoken, strict=True):
        expect_words(page, words)
    lags = [float(page.locator("speech-live").get_attribute("data-lag") or 99) for page in pages]
    for page in pages:
        stop(page)
    gc.collect()
    grown = resident() - before
    record(
        "ten browsers at once",
        {
            "words of each": len(spoken[0]),
            "largest lag of each, s": sorted(lags),
            "server grew by MB": round(grown),
        },
    )
    assert max(lags) < 3 * statistics.median(lags) + 1, "nobody waits while others are served"
    assert grown < 100
