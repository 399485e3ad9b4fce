"""The report's page in a real browser: its filters work, nothing from the posts runs, nothing sticks out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.slow  # the report takes a minute


def click(browser: Any, name: str) -> None:
    button = browser.find_element("id", name)
    browser.execute_script("arguments[0].scrollIntoView({block: 'center'})", button)
    button.click()


def show(browser: Any, page: Path, width: int) -> None:
    from selenium.webdriver.support.ui import WebDriverWait

    metrics = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 600}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    browser.get(page.as_uri())
    load = "[...document.images].forEach(i => i.loading = 'eager'); return document.readyState === 'complete'"
    WebDriverWait(browser, 20).until(lambda b: b.execute_script(load))
    done = "return [...document.images].every(i => i.complete)"  # late pictures would move what is clicked
    WebDriverWait(browser, 20).until(lambda b: b.execute_script(done))


def shown_cards(browser: Any) -> list[Any]:
    script = "return [...document.querySelectorAll('#cards li')].filter(c => c.getClientRects().length)"
    found: list[Any] = browser.execute_script(script)
    return found


def pick(browser: Any, name: str, value: str) -> None:
    from selenium.webdriver.support.ui import Select

    Select(browser.find_element("id", f"filter-{name}")).select_by_visible_text(value)


def test_filters_work(browser: Any, page: Path) -> None:
    from selenium.webdriver.support.ui import WebDriverWait

    show(browser, page, 1400)
    every = shown_cards(browser)
    count = browser.find_element("id", "filter-count")
    assert len(every) > 3
    assert count.text == f"{len(every)} of {len(every)} errors"
    truth = every[0].get_attribute("data-truth")
    pick(browser, "truth", truth)
    some = shown_cards(browser)
    assert {card.get_attribute("data-truth") for card in some} == {truth}
    assert 0 < len(some) == sum(card.get_attribute("data-truth") == truth for card in every)
    assert count.text == f"{len(some)} of {len(every)} errors"
    predicted = some[0].get_attribute("data-predicted")
    pick(browser, "predicted", predicted)
    assert {c.get_attribute("data-predicted") for c in shown_cards(browser)} == {predicted}
    click(browser, "filter-reset")
    WebDriverWait(browser, 20).until(lambda _: len(shown_cards(browser)) == len(every))
    values = sorted(float(card.get_attribute("data-confidence")) for card in every)
    middle = (values[0] + values[-1]) / 2
    low = browser.find_element("id", "filter-low")
    low.clear()
    low.send_keys(f"{100 * middle:.2f}")
    sure = shown_cards(browser)
    assert len(sure) == sum(value >= middle - 1e-4 for value in values) < len(every)
    click(browser, "filter-reset")
    browser.find_element("id", "filter-text").send_keys("quotes")
    assert all("quotes" in card.text for card in shown_cards(browser))
    assert 0 < len(shown_cards(browser)) < len(every)
    click(browser, "filter-reset")
    pick(browser, "order", "least confident first")
    shown = [float(card.get_attribute("data-confidence")) for card in shown_cards(browser)]
    assert shown == values


def test_nothing_from_the_posts_runs(browser: Any, page: Path) -> None:
    show(browser, page, 1400)
    assert "owned" not in browser.title
    problems = [entry for entry in browser.get_log("browser") if entry["level"] == "SEVERE"]
    assert problems == []
    loaded = browser.execute_script("return performance.getEntriesByType('resource').map(e => e.name)")
    assert all(name.startswith("data:") for name in loaded), loaded


@pytest.mark.parametrize("width", [1400, 390])
def test_nothing_sticks_out(browser: Any, page: Path, width: int) -> None:
    show(browser, page, width)
    assert browser.execute_script("return document.documentElement.scrollWidth") <= width
    broken = browser.execute_script("return [...document.images].filter(i => i.complete && !i.naturalWidth).length")
    assert broken == 0


def test_wide_letters_have_glyphs(browser: Any, page: Path) -> None:
    """A box would be as wide as any other box: the fonts in the page must be loaded and used."""
    show(browser, page, 1400)
    script = """
      const done = arguments[arguments.length - 1];
      Promise.all(["16px 'mmsent wide'", "16px 'mmsent emoji'"].map((f, i) => document.fonts.load(f, ["情", "😀"][i])))
        .then(found => done(found.map(f => f.length)));
    """
    assert browser.execute_async_script(script) == [1, 1]


def test_the_first_screen_answers_and_the_contents_follow(browser: Any, page: Path) -> None:
    show(browser, page, 1400)
    bottom = "return document.querySelector('.answer').getBoundingClientRect().bottom"
    assert browser.execute_script(bottom) < 900
    assert len(browser.find_elements("css selector", ".sentences li")) == 3
    assert len(browser.find_elements("css selector", "tr.best .mark")) == 1
    current = "return document.querySelector('.contents [aria-current]').hash"
    assert browser.execute_script(current) == "#found"
    browser.execute_script("document.getElementById('figure-9').scrollIntoView()")
    from selenium.webdriver.support.ui import WebDriverWait

    WebDriverWait(browser, 20).until(lambda b: b.execute_script(current) == "#figure-9")
    top = "return document.querySelector('.contents').getBoundingClientRect().top"
    assert browser.execute_script(top) == 0


def test_figures_enlarge(browser: Any, page: Path) -> None:
    from selenium.webdriver.common.keys import Keys

    show(browser, page, 390)
    opened = "return document.getElementById('enlarged').open"
    button = browser.find_element("css selector", "#figure-9 .enlarge")
    browser.execute_script("arguments[0].focus()", button)
    button.send_keys(Keys.ENTER)
    assert browser.execute_script(opened)
    shown = browser.find_element("css selector", "#enlarged img")
    assert shown.size["width"] > 800  # letters of the figure as on a wide screen; the phone scrolls
    browser.find_element("css selector", "body").send_keys(Keys.ESCAPE)
    assert not browser.execute_script(opened)
