"""Every state of every page, light and dark, wide and narrow, in both languages: axe-core finds no serious fault."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest

from tests.helpers.browser import colours, press, resize, wait
from tests.helpers.page_states import STATES, State, reach, served

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]

AXE = files("axe_playwright_python").joinpath("axe.min.js")
JUDGE = """
const done = arguments[0];
axe.run({resultTypes: ["violations"]}).then(({violations}) => done(violations
  .filter(({impact}) => ["serious", "critical"].includes(impact))
  .flatMap(({id, nodes}) => nodes.map((one) => `${id}: ${one.html.slice(0, 200)}; ${one.failureSummary}`))));
"""


@pytest.fixture(scope="module")
def addresses(small: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """Where the pages of a service and of the audit are."""
    posts, cache = small / "posts" / "posts.jsonl", next((small / "cache").glob("*.h5"))
    with served(posts, cache, small / "runs", tmp_path_factory.mktemp("states")) as found:
        yield found


@pytest.mark.parametrize("state", STATES, ids=lambda state: f"{state.page or 'try'}-{state.name}")
def test_axe_finds_no_serious_fault_and_nothing_sticks_out(
    browser: Any, addresses: dict[str, str], state: State, request: pytest.FixtureRequest
) -> None:
    address = request.getfixturevalue("page").as_uri() if state.page == "report" else addresses[state.page]
    for width, scheme, language in ((1400, "light", "en"), (390, "dark", "zh")):
        resize(browser, width)
        colours(browser, scheme)
        reach(browser, state, address, language)
        browser.execute_script(AXE.read_text(encoding="utf-8"))
        assert browser.execute_async_script(JUDGE) == [], (width, scheme, language)
        assert browser.execute_script("return document.documentElement.scrollWidth") <= width
    colours(browser, "")


FOCUSED = """
const [at, tray] = [document.activeElement, document.getElementById("tray")];
return at.closest("#tray, .top") || at.getBoundingClientRect().bottom <= tray.getBoundingClientRect().top + 1
  ? null : at.outerHTML.slice(0, 200);
"""


@pytest.mark.parametrize("width", [1400, 390])
def test_the_focused_control_is_never_under_the_tray(browser: Any, addresses: dict[str, str], width: int) -> None:
    resize(browser, width)
    labelled = next(one for one in STATES if (one.page, one.name) == ("review", "labelled"))
    reach(browser, labelled, addresses["review"], "en")
    for _ in range(40):
        press(browser, "\ue004")  # Tab
        assert browser.execute_script(FOCUSED) is None


def test_a_post_of_the_map_is_read_by_keys_alone(browser: Any, addresses: dict[str, str]) -> None:
    resize(browser, 390)
    reach(browser, State("map", "points"), addresses["map"], "en")
    at = "document.activeElement"
    press(browser, "\ue004", "\ue007", "\ue004", "\ue007")  # the link to the list, the first button under its title
    wait(browser, f"{at}.closest('#post') && {at}.tagName === 'H2'")
    opened = browser.execute_script(f"return {at}.textContent")
    box = browser.execute_script(
        f"const {{top, bottom}} = {at}.getBoundingClientRect(); return [top, bottom, innerHeight]"
    )
    assert 0 <= box[0] < box[1] <= box[2]
    press(browser, "\ue00c")  # Esc
    assert browser.execute_script(f"return [{at}.closest('#list') !== null, {at}.textContent]") == [True, opened]


def test_two_heads_are_chosen_and_their_posts_opened_by_keys_alone(browser: Any, addresses: dict[str, str]) -> None:
    resize(browser, 1400)
    reach(browser, State("compare", "found"), addresses["compare"], "en")
    browser.execute_script("document.getElementById('language').focus()")
    names = []
    for _ in range(12):
        press(browser, "\ue004")
        names.append(browser.execute_script("return document.activeElement.id || document.activeElement.textContent"))
    assert names[:2] == ["a", "b"]
    assert "Open these in the gallery" in names
    said = browser.execute_script("return document.getElementById('said').textContent")
    assert said == browser.find_element("css selector", "#found p").text


def test_the_maps_paper_follows_the_theme(browser: Any, addresses: dict[str, str]) -> None:
    pixel = "[...document.getElementById('map').getContext('2d').getImageData(0, 0, 1, 1).data].join()"
    colours(browser, "light")
    reach(browser, State("map", "points"), addresses["map"], "en")
    wait(browser, f"{pixel} === '255,255,255,255'")
    colours(browser, "dark")  # while it is open
    wait(browser, f"{pixel} === '27,33,41,255'")
    colours(browser, "")
