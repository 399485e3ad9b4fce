"""The pages in a real browser: a post is labelled and explained, a label corrected, and the list downloaded."""

from __future__ import annotations

import base64
import re
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from mmsent.cli.workspace import Workspace
from mmsent.data.dataset import load_dataset
from mmsent.features.new_posts import NewPost
from mmsent.inference.predict import predict
from mmsent.inference.tally import agreement
from mmsent.serve.app import create_app
from mmsent.serve.limits import Limits
from mmsent.serve.review import Review, validation_rows
from mmsent.serve.server import bind
from mmsent.serve.service import Service, examples

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]

DROP = """
const [name, type, data, target] = arguments;
const bytes = Uint8Array.from(atob(data), (c) => c.charCodeAt(0));
const transfer = new DataTransfer();
transfer.items.add(new File([bytes], name, {type}));
for (const kind of ["dragenter", "dragover", "drop"]) {
  target.dispatchEvent(new DragEvent(kind, {dataTransfer: transfer, bubbles: true, cancelable: true}));
}
"""
PASTE = """
const [name, type, data] = arguments;
const transfer = new DataTransfer();
transfer.items.add(new File([Uint8Array.from(atob(data), (c) => c.charCodeAt(0))], name, {type}));
document.dispatchEvent(new ClipboardEvent("paste", {clipboardData: transfer, bubbles: true, cancelable: true}));
"""


@pytest.fixture(scope="module")
def runs(small: Path) -> list[Any]:
    found = Workspace(runs_at=small / "runs").named_runs(sorted(path.name for path in (small / "runs").iterdir()))
    return sorted(
        (r for r in found if r.fusion in {"concat", "weighted", "attention"}), key=lambda r: r.fusion != "concat"
    )


@pytest.fixture(scope="module")
def address(small: Path, runs: list[Any]) -> Iterator[str]:
    """A server of three small runs with the offline encoders, in a thread."""
    import uvicorn

    service = Service(runs, Limits(), device="cpu")
    service.warm_up()
    rows, shared = validation_rows(runs)
    dataset = load_dataset(small / "posts" / "posts.jsonl")
    review = Review(rows, dataset, runs=[run.name for run in shared])
    app = create_app(service, hosts=["localhost"], review=lambda: review)
    bound = bind("127.0.0.1", 0)
    server = uvicorn.Server(uvicorn.Config(app, log_level="warning", ws="none"))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [bound]}, daemon=True)
    thread.start()
    until = time.monotonic() + 60
    while not server.started and time.monotonic() < until:
        time.sleep(0.05)
    yield f"http://127.0.0.1:{bound.getsockname()[1]}"
    server.should_exit = True
    thread.join(30)


def wait(browser: Any, script: str, seconds: float = 60) -> Any:
    from selenium.webdriver.support.ui import WebDriverWait

    return WebDriverWait(browser, seconds).until(lambda b: b.execute_script(f"return {script}"))


def show(browser: Any, address: str, width: int = 1400, language: str = "en") -> None:
    metrics = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 600}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    browser.get(address)
    wait(browser, "document.documentElement.dataset.ready === 'yes'")
    if browser.execute_script("return document.documentElement.lang")[:2] != language:
        click(browser, "language")


def choose(browser: Any, name: str, value: str) -> None:
    """Set one of the review page's filters and wait until the rows are those it asks for."""
    from selenium.webdriver.support.ui import Select

    Select(browser.find_element("id", name)).select_by_value(value)
    wait(browser, "document.getElementById('rows').getAttribute('aria-busy') === 'false'")


def click(browser: Any, name: str) -> None:
    button = browser.find_element("id", name)
    browser.execute_script("arguments[0].scrollIntoView({block: 'center'})", button)
    button.click()


def explained(browser: Any) -> None:
    wait(browser, "!document.getElementById('explained').hidden && document.getElementById('thinking').hidden", 120)


def example(number: int) -> tuple[str, bytes, str]:
    raw, text = examples()[number]
    return base64.b64encode(raw).decode(), raw, text


def test_a_dropped_picture_and_a_typed_text_are_labelled_and_explained(
    browser: Any, address: str, runs: list[Any]
) -> None:
    show(browser, address)
    data, raw, text = example(0)
    browser.execute_script(DROP, "post.jpg", "image/jpeg", data, browser.find_element("id", "drop"))
    wait(browser, "document.getElementById('preview').naturalWidth > 0")
    browser.find_element("id", "text").send_keys(text)
    click(browser, "submit")
    wait(browser, "document.getElementById('verdict') !== null")
    wanted = predict([NewPost("post", text, raw)], runs, device="cpu")[0]
    shown = browser.find_element("id", "verdict").text.split("\n")
    assert wanted.label is not None
    assert shown == [wanted.label, f"{100 * wanted.probabilities[wanted.label]:.1f}%"]
    agree = browser.find_element("css selector", "#answer .tag").text
    assert agree == agreement(wanted.agreeing, 3, wanted.label)
    assert len(browser.find_elements("css selector", "#heads article")) == 3
    weights = browser.find_elements("css selector", "#heads .shares")
    assert {w.text.split("\n")[0] for w in weights} == {"Fusion weights", "Mean attention"}
    assert browser.find_element("id", "said").get_attribute("textContent").startswith(f"{wanted.label}, ")
    explained(browser)
    words = [
        w.get_attribute("textContent").split(" (")[0] for w in browser.find_elements("css selector", "#words .word")
    ]
    assert "".join(words).replace(" ", "").lower() == text.replace(" ", "").lower()
    assert browser.find_element("id", "words").find_elements("css selector", ".for, .against")
    post = {"image": ("a.jpg", raw), "text": (None, text.encode())}
    found = httpx.post(f"{address}/explain", files=post, params={"target": wanted.label}, timeout=120).json()[
        "modality"
    ]
    shares = browser.find_elements("css selector", "#shares .value")
    for shown_value, value in zip(shares, (found["image"], found["text"]), strict=True):
        side = "supports the label" if value >= 0 else "opposes the label"
        assert shown_value.text == f"{side}, {'+' if value >= 0 else '−'}{abs(value):.2f}"
    bars = browser.find_elements("css selector", "#shares .track i")
    assert [bar.get_attribute("class") for bar in bars] == [
        "for" if found[half] >= 0 else "against" for half in ("image", "text")
    ]
    colours = "new Set(c.getContext('2d').getImageData(0, 0, c.width, c.height).data).size"
    assert browser.execute_script(f"const c = document.getElementById('canvas'); return {colours}") > 50
    assert wanted.label in browser.find_element("id", "canvas").get_attribute("aria-label")


CONTRADICTION = """
const answer = {
  id: "post", label: "neutral", probabilities: {negative: 0.34, neutral: 0.24, positive: 0.42}, problem: "",
  heads: {a: "negative", b: "neutral", c: "positive"}, agreeing: 1, calibrated: true, by_head: [],
  decision: "no majority: neutral by rule",
};
answer.by_head = Object.entries(answer.heads).map(([run, label]) => ({
  run, label, fusion: "weighted", probabilities: answer.probabilities, weights: {image: 0.29, text: 0.71},
}));
Object.assign(answer, arguments[0]);
window.real ??= window.fetch;
window.fetch = async (path, ...more) => path === "predict"
  ? new Response(JSON.stringify(answer), {status: 200}) : window.real(path, ...more);
"""


def test_a_label_that_is_not_the_longest_bar_has_words_in_place_of_a_percentage(browser: Any, address: str) -> None:
    def shown(**more: Any) -> tuple[str, str]:
        browser.execute_script(CONTRADICTION, more)
        browser.execute_script("document.querySelector('#examples button').click()")
        explained(browser)
        verdict = browser.find_element("id", "verdict").text.replace("\n", " ")
        return verdict, browser.find_element("css selector", "#answer .tag").text

    show(browser, address)
    assert shown() == ("neutral no majority: neutral by rule", "1 of 3 heads chose neutral")
    two = {"a": "neutral", "b": "neutral", "c": "positive"}
    said = "by 2 of 3 heads; positive has the highest mean probability"
    assert shown(heads=two, agreeing=2) == (f"neutral {said}", "2 of 3 heads chose neutral")
    none = {"a": "negative", "b": "positive", "c": "positive", "d": "negative"}
    assert shown(heads=none, agreeing=0) == ("neutral no majority: neutral by rule", "none of 4 heads chose neutral")
    for width in (1120, 1400, 390):
        show(browser, address, width)
        shown()
        wide = "n.clientWidth && n.scrollWidth > n.clientWidth + 1"
        found = f"[...document.querySelectorAll('.head, .head *')].filter((n) => {wide})"
        assert browser.execute_script(f"return {found}.map((n) => n.outerHTML)") == []


def test_full_batches_answer_as_predict_does(address: str, small: Path, runs: list[Any]) -> None:
    data = load_dataset(small / "posts" / "posts.jsonl")
    posts = [NewPost(post.id, data.text_of(post), post.image) for post in list(data.posts)[:64]]
    wanted = predict(posts, runs, device="cpu")

    def ask(post: NewPost) -> dict[str, Any]:
        assert isinstance(post.image, Path)
        files: dict[str, Any] = {"image": ("a.png", post.image.read_bytes()), "text": (None, str(post.text).encode())}
        found: dict[str, Any] = httpx.post(f"{address}/predict", files=files, timeout=120).json()
        return found

    with ThreadPoolExecutor(32) as pool:
        found = list(pool.map(ask, posts))
    for one, want in zip(found, wanted, strict=True):
        assert (one["label"], one["heads"]) == (want.label, want.heads)
        assert one["probabilities"] == pytest.approx(want.probabilities, abs=1e-5)
    sizes = re.findall(r'mmsent_batch_posts_bucket\{le="(\d+)\.0"\} (\d+)', httpx.get(f"{address}/metrics").text)
    counts = {int(size): int(n) for size, n in sizes}
    assert counts[16] > counts[8]  # some batches were larger than eight


def test_a_pasted_picture_the_words_in_numbers_and_another_target(browser: Any, address: str) -> None:
    from selenium.webdriver.support.ui import Select

    show(browser, address)
    browser.execute_script(PASTE, "post.jpg", "image/jpeg", example(1)[0])
    wait(browser, "document.getElementById('preview').naturalWidth > 0")
    browser.find_element("id", "text").send_keys("An awful day")
    click(browser, "submit")
    explained(browser)
    Select(browser.find_element("id", "target")).select_by_value("neutral")
    wait(browser, "document.getElementById('canvas').getAttribute('aria-label').includes('neutral')", 120)
    click_summary = browser.find_element("css selector", "#text-side summary")
    browser.execute_script("arguments[0].click()", click_summary)
    cells = [row.text for row in browser.find_elements("css selector", "#word-table tbody tr")]
    assert len(cells) == 3
    Select(browser.find_element("id", "method")).select_by_value("grad_cam")
    assert len(browser.find_elements("css selector", "#words .word")) == 3


def test_the_keyboard_is_enough(browser: Any, address: str) -> None:
    from selenium.webdriver.common.action_chains import ActionChains
    from selenium.webdriver.common.keys import Keys

    show(browser, address)
    browser.execute_script("document.body.focus()")
    names = []
    for _ in range(16):
        ActionChains(browser).send_keys(Keys.TAB).perform()
        names.append(browser.execute_script("return document.activeElement.id || document.activeElement.className"))
        if browser.execute_script("return document.activeElement.closest('#examples') !== null"):
            break
    assert [n for n in names if n in {"file", "text", "submit", "clear"}] == ["file", "text", "submit", "clear"]
    ActionChains(browser).send_keys(Keys.ENTER).perform()  # the first example
    wait(browser, "document.getElementById('verdict') !== null")


def test_every_control_has_a_name(browser: Any, address: str) -> None:
    for path in ("/", "/review", "/docs"):
        for language in ("en", "zh"):
            show(browser, address + path, language=language)
            unnamed = browser.execute_script(
                """return [...document.querySelectorAll("input, select, textarea, button, a")].filter((node) =>
                  !(node.getAttribute("aria-label") || node.textContent.trim() || node.labels?.length)
                ).map((node) => node.outerHTML)"""
            )
            assert unnamed == []


def test_a_refusal_is_said(browser: Any, address: str) -> None:
    show(browser, address)
    click(browser, "submit")
    assert browser.find_element("id", "problem").text == "Add an image or a text."
    browser.find_element("id", "text").send_keys("only words")
    click(browser, "submit")
    wait(browser, "document.getElementById('problem').textContent.startsWith('no picture; ')")


def test_a_label_is_corrected_and_the_list_downloaded(
    browser: Any, address: str, small: Path, tmp_path: Path, runs: list[Any]
) -> None:
    browser.execute_cdp_cmd("Browser.setDownloadBehavior", {"behavior": "allow", "downloadPath": str(tmp_path)})
    show(browser, address + "/review")
    wait(browser, "document.querySelectorAll('#rows .row').length > 0")
    confidences = (
        "[...document.querySelectorAll('#rows .facts')].map((f) => /([\\d.]+)%/.exec(f.textContent))"
        ".filter(Boolean).map((found) => parseFloat(found[1]))"  # a label by rule has no percentage
    )
    choose(browser, "order", "unsure")
    shown = browser.execute_script(f"return {confidences}")
    assert len(shown) > 1
    assert shown == sorted(shown)
    choose(browser, "only", "wrong")
    assert re.match(r"\d+ of", browser.find_element("id", "count").text)
    card = wait(browser, "document.querySelector('#rows .row')")
    name = card.get_attribute("data-id")
    buttons = card.find_elements("css selector", ".choose button")
    before = next(b.text for b in buttons if b.get_attribute("aria-pressed") == "true")
    new = next(b for b in buttons if b.text != before)
    label = new.text
    browser.execute_script("arguments[0].click()", new)
    assert browser.find_element("id", "changed").text == "1 corrected label"
    show(browser, address + "/review")  # a correction outlives the page
    wait(browser, "!document.getElementById('tray').hidden")
    click(browser, "download")
    until = time.monotonic() + 20
    while not (found := [p for p in tmp_path.iterdir() if p.suffix == ".jsonl"]) and time.monotonic() < until:
        time.sleep(0.1)
    (small / "posts" / "corrected").mkdir(exist_ok=True)
    taken = small / "posts" / "corrected.jsonl"  # beside the old one, so that its pictures are found
    taken.write_bytes(found[0].read_bytes())
    old, new_posts = (
        {post.id: (post.label, post.image) for post in load_dataset(path).posts}
        for path in (small / "posts" / "posts.jsonl", taken)
    )
    taken.unlink()
    assert found[0].name == "posts.jsonl"
    assert old[name][0] == before
    assert new_posts == old | {name: (label, old[name][1])}
    click(browser, "discard")
    assert not browser.find_element("id", "tray").is_displayed()


def test_nothing_from_the_posts_runs_and_nothing_comes_from_elsewhere(browser: Any, address: str) -> None:
    browser.get_log("browser")  # what earlier tests left there
    show(browser, address + "/review")
    browser.find_element("id", "find").send_keys("script")
    wait(browser, "document.querySelector('#rows .row .text')?.textContent.includes('<script>')")
    assert "owned" not in browser.title
    for path in ("/", "/review", "/docs"):
        show(browser, address + path)
        loaded = browser.execute_script("return performance.getEntriesByType('resource').map(e => e.name)")
        assert all(name.startswith((address, "blob:", "data:")) for name in loaded), loaded
    problems = [entry for entry in browser.get_log("browser") if entry["level"] == "SEVERE"]
    assert problems == []


@pytest.mark.parametrize("width", [1400, 390])
@pytest.mark.parametrize("language", ["en", "zh"])
def test_nothing_sticks_out(browser: Any, address: str, width: int, language: str) -> None:
    for path in ("/", "/review", "/docs"):
        show(browser, address + path, width, language)
        if path == "/":
            browser.execute_script("document.querySelector('#examples button').click()")
            explained(browser)
        if path == "/review":
            wait(browser, "document.querySelectorAll('#rows .row').length > 0")
        assert browser.execute_script("return document.documentElement.scrollWidth") <= width
        assert browser.execute_script("return document.documentElement.lang")[:2] == language
