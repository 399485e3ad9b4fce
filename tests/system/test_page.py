"""The report's page in a real browser: its filters work, nothing from the posts runs, nothing sticks out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.slow  # the report takes a minute


def show(browser: Any, page: Path, width: int) -> None:
    from selenium.webdriver.support.ui import WebDriverWait

    metrics = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 600}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    browser.get(page.as_uri())
    load = "[...document.images].forEach(i => i.loading = 'eager'); return document.readyState === 'complete'"
    WebDriverWait(browser, 20).until(lambda b: b.execute_script(load))
    done = "return [...document.images].every(i => i.complete)"  # late pictures would move what is clicked
    WebDriverWait(browser, 20).until(lambda b: b.execute_script(done))


def shown(browser: Any) -> list[str]:
    found: list[str] = browser.execute_script(
        "return [...document.querySelectorAll('#rows .row')].map(c => c.dataset.id)"
    )
    return found


def fill(browser: Any, **fields: str) -> None:
    """Set filters, the others to what they are at first, and wait for the posts."""
    from selenium.webdriver.support.ui import WebDriverWait

    browser.execute_script(
        """for (const name of ["order", "only", "label", "predicted", "least", "most", "find"]) {
          const field = document.getElementById(name);
          field.value = arguments[0][name] ?? field.dataset.usual;
        }
        document.getElementById("filters").requestSubmit();""",
        fields,
    )
    done = "return document.getElementById('rows').getAttribute('aria-busy') === 'false'"
    WebDriverWait(browser, 20).until(lambda b: b.execute_script(done))


def test_filters_work(browser: Any, page: Path) -> None:
    show(browser, page, 1400)
    posts = browser.execute_script("return JSON.parse(document.getElementById('posts').textContent).rows")
    every = [post["id"] for post in posts]
    assert len(every) > 1
    fill(browser)
    assert shown(browser) == every[:24]
    for name in ("label", "predicted"):
        value = posts[0][name]
        fill(browser, **{name: value})
        some = [post["id"] for post in posts if post[name] == value]
        assert (shown(browser), len(some) > 0) == (some[:24], True)
        assert browser.find_element("id", "count").text == f"{len(some)} of {len(every)} posts"
    values = [100 * post["confidence"] for post in posts]
    least = round(min(values) + 0.02, 2)
    fill(browser, least=str(least))
    assert len(shown(browser)) == sum(value >= least - 1e-7 for value in values) < len(every)
    fill(browser, find="quotes")
    assert shown(browser) == [post["id"] for post in posts if "quotes" in post["text"]]
    fill(browser, order="unsure")
    assert shown(browser) == [post["id"] for post in sorted(posts, key=lambda post: post["confidence"])][:24]


LASSO = """
const canvas = document.getElementById("map");
canvas.scrollIntoView({ block: "center" });
document.getElementById("lasso").click();
const box = canvas.getBoundingClientRect();
const send = (kind, across, down) => canvas.dispatchEvent(new PointerEvent(kind, {
  clientX: box.left + across * box.width, clientY: box.top + down * box.height, pointerId: 1, bubbles: true }));
send("pointerdown", 0.01, 0.01);
for (const [across, down] of [[0.99, 0.01], [0.99, 0.99], [0.01, 0.99]]) send("pointermove", across, down);
send("pointerup", 0.01, 0.99);
"""


def test_the_map_chooses_the_posts_below(browser: Any, page: Path) -> None:
    from selenium.webdriver.support.ui import Select, WebDriverWait

    def words(name: str) -> str:
        return str(browser.find_element("id", name).get_attribute("textContent"))

    show(browser, page, 1400)
    every = len(browser.execute_script("return JSON.parse(document.getElementById('posts').textContent).rows"))
    points = browser.execute_script("return JSON.parse(document.getElementById('points').textContent).points")
    assert words("list-title") == f"All {len(points['ids'])} posts"
    colours = "new Set(new Uint32Array(document.getElementById('map').getContext('2d').getImageData(0, 0, 500, 400)"
    drawn = f"return {colours}.data.buffer)).size > 2"
    for name in ("label", "predicted", "confidence", "split", "agreement"):
        Select(browser.find_element("id", "colour")).select_by_value(name)
        WebDriverWait(browser, 20).until(lambda b: b.execute_script(drawn))
    browser.execute_script(LASSO)
    chosen = f"{len(points['ids'])} posts in the lasso"
    WebDriverWait(browser, 20).until(lambda _: words("list-title") == chosen)
    assert words("count") == f"{every} of {every} posts"
    first = browser.find_element("css selector", "#list button")
    browser.execute_script("arguments[0].click()", first)
    WebDriverWait(browser, 20).until(lambda b: b.find_elements("css selector", "#post .row"))
    card = browser.find_element("css selector", "#post .row")
    assert card.get_attribute("data-id") == first.text == points["ids"][0]
    assert card.find_element("css selector", ".text").text.split() == points["texts"][0].split()
    browser.execute_script("document.getElementById('clear').click()")
    WebDriverWait(browser, 20).until(lambda _: words("list-title").startswith("All "))


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
