"""The pages in a real browser: a post is labelled and explained, a label corrected, and the list downloaded."""

from __future__ import annotations

import base64
import json
import re
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from mmsent.cli.workspace import Workspace
from mmsent.data.dataset import load_dataset
from mmsent.data.images import image_bytes
from mmsent.features.new_posts import NewPost
from mmsent.inference.predict import predict
from mmsent.inference.tally import agreement
from mmsent.serve.app import create_app
from mmsent.serve.limits import Limits
from mmsent.serve.review import Review, unlabelled_rows, validation_rows
from mmsent.serve.service import NoHeads, Service
from tests.helpers.browser import click, explained, press, serving, show, wait
from tests.helpers.made import LABELS, make_picture, make_rows
from tests.helpers.small import run

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
    service = Service(runs, Limits(), device="cpu")
    service.warm_up()
    rows, shared = validation_rows(runs)
    dataset = load_dataset(small / "posts" / "posts.jsonl")
    review = Review(rows, dataset, runs=[run.name for run in shared])
    with serving(create_app(service, hosts=["localhost"], review=lambda: review)) as found:
        yield found


def choose(browser: Any, name: str, value: str) -> None:
    """Set one of the review page's filters and wait until the rows are those it asks for."""
    from selenium.webdriver.support.ui import Select

    Select(browser.find_element("id", name)).select_by_value(value)
    wait(browser, "document.getElementById('rows').getAttribute('aria-busy') === 'false'")


def example(number: int) -> tuple[str, bytes, str]:
    raw = image_bytes(make_picture("positive", 96, np.random.default_rng(number)), "JPEG")
    return base64.b64encode(raw).decode(), raw, "What a lovely day, and nobody is angry"


def test_a_dropped_picture_and_a_typed_text_are_labelled_and_explained(
    browser: Any, address: str, runs: list[Any]
) -> None:
    show(browser, address)
    click(browser, "clear")
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
    click(browser, "clear")
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


def test_a_refusal_is_said(browser: Any, address: str) -> None:
    for language, said in (("en", "Add an image and a text: "), ("zh", "请添加图片和文字：")):
        show(browser, address, language=language)
        click(browser, "clear")
        browser.find_element("id", "text").send_keys("only words")  # the heads need both
        click(browser, "submit")
        assert browser.find_element("id", "problem").text.startswith(said)


def test_an_example_is_answered_on_load_and_explained_when_asked(browser: Any, address: str) -> None:
    from selenium.webdriver.common.action_chains import ActionChains

    show(browser, address, 390)
    assert browser.find_element("id", "verdict").is_displayed()
    assert not browser.find_element("id", "explanation").is_displayed()
    assert browser.execute_script("return scrollY") == 0
    assert 2 <= len(browser.find_elements("css selector", "#examples button")) <= 4
    browser.execute_script("document.querySelectorAll('#examples button')[1].click()")
    explained(browser)
    assert browser.execute_script("return document.getElementById('result').getBoundingClientRect().top") < 450
    click(browser, "text")  # an example's text is replaced, not added to
    ActionChains(browser).send_keys("mine").perform()
    assert browser.find_element("id", "text").get_attribute("value") == "mine"
    show(browser, f"{address}/?row=3")
    explained(browser)
    assert browser.title == "mmsent: label a post"


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
    buttons = card.find_elements("css selector", "[data-label]")
    before = next(b.get_attribute("data-label") for b in buttons if b.get_attribute("aria-pressed") == "true")
    new = next(b for b in buttons if b.get_attribute("data-label") != before)
    label = new.get_attribute("data-label")
    browser.execute_script("arguments[0].click()", new)
    assert browser.find_element("id", "changed").text == "1 label of yours"
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
    browser.execute_script("[...document.querySelectorAll('dialog button')].at(-1).click()")  # Cancel
    wait(browser, "!document.querySelector('dialog')")
    assert browser.find_element("id", "tray").is_displayed()
    click(browser, "discard")
    browser.find_element("css selector", "dialog .primary").click()
    wait(browser, "document.getElementById('tray').hidden")


SHOWN = "[...document.querySelectorAll('#rows .row')].map((card) => card.dataset.id)"


def text_of(browser: Any, name: str) -> str:
    return str(browser.find_element("id", name).get_attribute("textContent"))


def test_keys_filters_and_place_outlive_a_reload(browser: Any, address: str) -> None:
    from selenium.webdriver.common.keys import Keys

    show(browser, address + "/review")
    choose(browser, "order", "unsure")
    ids = browser.execute_script(f"return {SHOWN}")
    press(browser, Keys.ESCAPE, "1", " ", Keys.ARROW_RIGHT, "2")  # Esc leaves the field
    assert text_of(browser, "looked").startswith("3 of")
    press(browser, "z")
    assert text_of(browser, "looked").startswith("2 of")
    wait(browser, f"document.activeElement.dataset.id === {ids[3]!r}")
    press(browser, "g")
    wait(browser, "location.hash.includes('one=1')")
    browser.refresh()
    wait(browser, "document.documentElement.dataset.ready === 'yes'")
    assert text_of(browser, "looked").startswith("2 of")
    assert browser.find_element("id", "order").get_attribute("value") == "unsure"
    cards = [card for card in browser.find_elements("css selector", ".row") if card.is_displayed()]
    assert [card.get_attribute("data-id") for card in cards] == [ids[3]]
    press(browser, "g")
    choose(browser, "only", "open")
    assert browser.execute_script(f"return {SHOWN}")[:2] == ids[2:4]
    press(browser, Keys.ESCAPE, "/")
    assert browser.execute_script("return document.activeElement.id") == "find"
    press(browser, "?")  # in a field it is a letter
    assert not browser.find_elements("css selector", "dialog")
    show(browser, f"{address}/review#ids={json.dumps(ids[5:7])}")
    assert set(browser.execute_script(f"return {SHOWN}")) == set(ids[5:7])
    click(browser, "every")
    wait(browser, f"({SHOWN}).length > 2")
    press(browser, Keys.ENTER)
    wait(browser, "document.querySelector('dialog.zoom img')?.naturalWidth === 64")  # whole, and no small copy
    press(browser, Keys.ESCAPE)
    for _ in range(30):  # to the end and beyond: the focus stays in sight
        press(browser, Keys.ARROW_DOWN)
    bottom = "document.activeElement.getBoundingClientRect().bottom"
    wait(browser, f"{bottom} <= document.getElementById('tray').getBoundingClientRect().top + 1")
    browser.execute_script("localStorage.clear()")


def test_people_who_disagree_are_shown_and_most_of_them_decide(browser: Any, address: str) -> None:
    ids: list[str] = []
    for name, said in (("anna", "1"), ("ben", "1"), ("caro", "2")):
        show(browser, f"{address}/review?{name}#order=listed")
        field = browser.find_element("id", "annotator")
        field.clear()
        field.send_keys(name + "\n")
        browser.execute_script("arguments[0].blur()", field)
        wait(browser, "document.getElementById('rows').getAttribute('aria-busy') === 'false'")
        ids = ids or browser.execute_script(f"return {SHOWN}")
        assert text_of(browser, "looked").startswith("0 of")  # everybody has their own labels
        press(browser, said, "3")
        wait(browser, "document.getElementById('looked').textContent.startsWith('2 of')")
    said = "Posts on which people disagree: 1. Posts that all have labelled: 2. "
    wait(browser, f"document.getElementById('team').textContent.startsWith({said!r})")
    assert text_of(browser, "team").endswith("; all together 0.45")  # (2/3 - 7/18) / (1 - 7/18)
    choose(browser, "only", "conflict")
    assert browser.execute_script(f"return {SHOWN}") == ids[:1]
    assert "anna: negative, ben: negative, caro: neutral" in browser.find_element("css selector", ".others").text
    browser.execute_script("localStorage.clear()")


def downloaded(folder: Path, ending: str) -> Path:
    until = time.monotonic() + 20
    while not (found := [path for path in folder.iterdir() if path.suffix == ending]) and time.monotonic() < until:
        time.sleep(0.1)
    return found[0]


def test_twenty_posts_are_labelled_by_keys_alone_and_a_head_of_them_is_served(browser: Any, tmp_path: Path) -> None:
    from selenium.webdriver.common.keys import Keys

    rng = np.random.default_rng(0)
    posts, taken = tmp_path / "posts", tmp_path / "taken"
    posts.mkdir()
    taken.mkdir()
    known = {}
    for i, (label, text) in enumerate(make_rows(20, rng)):
        make_picture(label, 64, rng).save(posts / f"{i}.png")
        known[f"post {i}"] = (label, text)
    rows = [{"id": name, "image": f"{i}.png", "text": text} for i, (name, (_, text)) in enumerate(known.items())]
    manifest = posts / "posts.jsonl"
    manifest.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    dataset = load_dataset(manifest)
    review = Review(unlabelled_rows(dataset), dataset)
    app = create_app(NoHeads(Limits(), LABELS, "posts"), hosts=["localhost"], review=lambda: review)
    browser.execute_cdp_cmd("Browser.setDownloadBehavior", {"behavior": "allow", "downloadPath": str(taken)})
    with serving(app) as address:
        browser.get(address)
        wait(browser, "location.pathname === '/review' && document.documentElement.dataset.ready === 'yes'")
        ids = browser.execute_script(f"return {SHOWN}")
        assert sorted(ids) == sorted(known)  # shuffled
        press(browser, *(str(LABELS.index(known[name][0]) + 1) for name in ids))
        assert text_of(browser, "looked") == "20 of 20 looked at"
        for _ in range(60):
            press(browser, Keys.TAB)
            if browser.execute_script("return document.activeElement.id") == "download":
                break
        press(browser, Keys.ENTER)
        manifest.write_bytes(downloaded(taken, ".jsonl").read_bytes())
    assert {post.id: post.label for post in load_dataset(manifest).posts} == {k: v[0] for k, v in known.items()}
    where = ["--data", str(manifest), "--cache", str(tmp_path / "cache")]
    assert run("extract", *where, "--encoder", "offline", "--views", "0") == 0
    assert run("fit", *where, "--runs", str(tmp_path / "runs"), "--val-size", "6", "--epochs", "20") == 0
    service = Service(
        Workspace(runs_at=tmp_path / "runs").named_runs([next((tmp_path / "runs").iterdir()).name]), Limits()
    )
    with serving(create_app(service, hosts=["localhost"])) as address:
        files: dict[str, Any] = {"image": example(1)[1], "text": (None, b"a lovely, sunny win")}
        assert httpx.post(f"{address}/predict", files=files, timeout=60).json()["label"] == "positive"


def test_three_rows_are_corrected_on_the_audits_own_page(browser: Any, small: Path, tmp_path: Path) -> None:
    manifest = small / "posts" / "posts.jsonl"
    where = ["--data", str(manifest), "--cache", str(small / "cache"), "--runs", str(tmp_path / "runs")]
    assert run("fit", *where, "--epochs", "3", "--folds", "3") == 0
    assert run("audit", *where, "--out", str(tmp_path / "audit")) == 0
    browser.execute_cdp_cmd("Browser.setDownloadBehavior", {"behavior": "allow", "downloadPath": str(tmp_path)})
    show(browser, (tmp_path / "audit" / "audit.html").as_uri())
    old = {post.id: post.label for post in load_dataset(manifest).posts}
    wanted = {
        name: LABELS[(LABELS.index(str(old[name])) + 1) % 3] for name in browser.execute_script(f"return {SHOWN}")[:3]
    }
    press(browser, *(str(LABELS.index(label) + 1) for label in wanted.values()))
    browser.refresh()
    wait(browser, "document.documentElement.dataset.ready === 'yes'")
    assert text_of(browser, "changed") == "3 labels of yours"
    click(browser, "download")
    saved = downloaded(tmp_path, ".json")
    assert "mmsent correct labels.json" in text_of(browser, "next")
    assert run("correct", str(saved), "--data", str(manifest), "--out", str(tmp_path / "new.jsonl")) == 0
    lines = map(json.loads, (tmp_path / "new.jsonl").read_text(encoding="utf-8").splitlines())
    assert {row["id"]: row["label"] for row in lines} == old | wanted
    browser.execute_script("localStorage.clear()")


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


def test_two_heads_side_by_side_use_the_gallerys_card(browser: Any, address: str, runs: list[Any]) -> None:
    show(browser, f"{address}/compare?a={runs[0].name}&b={runs[1].name}")
    answer = browser.execute_script("return fetch(`compare/runs${location.search}`).then((found) => found.json())")
    said = browser.find_element("css selector", "#found p").text
    a, b = (f"{n} post{'s' * (n != 1)}" for n in (len(answer["only_a"]), len(answer["only_b"])))
    assert said.startswith(f"Only A is right on {a}, only B on {b}.")
    if shown := [*answer["only_a"], *answer["only_b"]]:
        card = browser.find_element("css selector", "#found .row")
        assert card.get_attribute("data-id") == shown[0]["id"]
        assert [one.text for one in card.find_elements("css selector", "dt")] == ["label", "A", "B"]
        browser.execute_script("arguments[0].click()", card.find_element("css selector", ".thumb"))
        wait(browser, "document.querySelector('dialog.zoom')")
