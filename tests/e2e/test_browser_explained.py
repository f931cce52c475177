"""The page of `speech explain` in a real browser, from a file, with nothing to ask."""

import re
from typing import Any

import pytest

from speech.inside.attribution import attribute
from speech.inside.explanation import explain, open_model, read_clip
from speech.inside.parts import effects
from speech.web.explained import explained_page
from tests.test_docs import CLIP

pytestmark = pytest.mark.browser


@pytest.fixture
def opened(browser, tmp_path) -> Any:
    model = open_model()
    seen = explain(model, read_clip(CLIP, model, on_note=lambda note: None))
    path = tmp_path / "left.html"
    path.write_text(
        explained_page("left.wav", seen, attribute(model, seen.log_mel), effects(seen)), "utf-8"
    )
    context = browser.new_context(viewport={"width": 390, "height": 800})
    page = context.new_page()
    page.requests, page.errors = [], []
    page.on("request", lambda request: page.requests.append(request.url))
    page.on("pageerror", lambda error: page.errors.append(str(error)))
    page.goto(path.as_uri())
    yield page
    assert not page.errors
    assert not [url for url in page.requests if not url.startswith(("file:", "data:", "blob:"))]
    context.close()


def numbers(page: Any) -> dict[str, float]:
    spans = page.locator(".inside-equations [data-name]")
    return {
        spans.nth(i).get_attribute("data-name"): float(spans.nth(i).text_content())
        for i in range(spans.count())
    }


def step(page: Any) -> int:
    found = re.search(r"step (\d+)", page.locator("[name=time]").text_content())
    assert found
    return int(found[1])


def assert_equations_hold(page: Any) -> None:
    n = numbers(page)
    assert n["f"] * n["before"] + n["i"] * n["g"] == pytest.approx(n["c"], abs=1e-3)
    assert n["o"] * n["tanh"] == pytest.approx(n["h"], abs=1e-3)


def test_the_cursor_moves_by_keys_and_the_numbers_at_it_satisfy_the_equations(opened):
    panels = opened.locator(".inside-panels")
    assert panels.locator("figure").count() == 13
    panels.focus()
    for part in ("layer.0.forward", "layer.1.backward"):
        opened.locator("[name=part]").select_option(part)
        panels.focus()
        for key in ("Home", "ArrowRight", "ArrowRight", "ArrowUp", "End", "ArrowLeft"):
            panels.press(key)
            assert_equations_hold(opened)
    assert step(opened) == 24
    panels.press("Home")
    assert step(opened) == 1
    # at a narrow width nothing sticks out
    assert opened.evaluate("document.documentElement.scrollWidth") <= 390


def test_a_click_on_a_cell_chooses_its_unit_and_the_cursor_follows_the_sound(opened):
    before = opened.locator("[name=unit]").input_value()
    canvas = opened.locator("[data-panel=cell] canvas")
    box = canvas.bounding_box()
    canvas.click(position={"x": box["width"] * 0.9, "y": box["height"] * 0.7})
    assert opened.locator("[name=unit]").input_value() != before
    assert step(opened) == pytest.approx(23, abs=1)
    assert_equations_hold(opened)
    opened.locator("[name=play]").click()
    opened.wait_for_function(
        "() => document.querySelector('audio').currentTime > 0.2 && "
        "document.querySelector('.inside-panels').getAttribute('aria-valuenow') > 0.2"
    )
    opened.wait_for_function("() => document.querySelector('audio').ended")
    assert step(opened) == 25
