"""Every state of every page, and how a browser gets there."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mmsent.cli.workspace import Workspace
from mmsent.config import VOTING_FUSIONS
from mmsent.data.dataset import load_dataset
from mmsent.features.cache import Cache
from mmsent.report.landscape import landscape
from mmsent.serve.app import create_app
from mmsent.serve.limits import Limits
from mmsent.serve.review import Review, validation_rows
from mmsent.serve.service import Service
from tests.helpers.browser import click, explained, press, serving, wait
from tests.helpers.small import run

WAITS, FAILS = "waits", "fails"  # of a request: no answer yet, no service
READY = "document.documentElement.dataset.ready === 'yes'"
START = """
try {
  localStorage.clear();
  localStorage.setItem("mmsent language", LANGUAGE);
} catch { /* about:blank keeps nothing */ }
const [rules, real] = [RULES, window.fetch];
window.fetch = async (path, ...more) => {
  const rule = Object.entries(rules).find(([name]) => String(path).split("?")[0] === name)?.[1];
  if (!rule) return real(path, ...more);
  if (rule === "waits") return new Promise(() => {});
  if (rule === "fails") throw new TypeError("Failed to fetch");
  const body = rule.merge ? {...await (await real(path, ...more)).json(), ...rule.merge} : rule.body;
  if (rule.heads) body.heads = body.heads.slice(0, rule.heads);
  return new Response(JSON.stringify(body), {status: rule.status ?? 200});
};
"""
LASSO = """
const canvas = document.getElementById("map");
document.getElementById("lasso").click();
const box = canvas.getBoundingClientRect();
const send = (kind, x, y) => canvas.dispatchEvent(new PointerEvent(kind, {pointerId: 1, bubbles: true,
  clientX: box.left + x * box.width, clientY: box.top + y * box.height}));
send("pointerdown", 0.02, 0.02);
for (const [x, y] of [[0.6, 0.02], [0.6, 0.98], [0.02, 0.98]]) send("pointermove", x, y);
send("pointerup", 0.02, 0.98);
"""
NO_MAJORITY = {
    "id": "post",
    "label": "neutral",
    "probabilities": {"negative": 0.34, "neutral": 0.24, "positive": 0.42},
    "problem": "The image has 3 frames; the first one was read.",
    "heads": {"a": "negative", "b": "neutral", "c": "positive"},
    "agreeing": 1,
    "calibrated": False,
    "decision": "no majority: neutral by rule",
    "by_head": [
        {"run": run, "fusion": fusion, "label": label, "probabilities": probabilities, "weights": weights}
        for run, fusion, label, weights in (
            ("a", "concat", "negative", None),
            ("b", "weighted", "neutral", {"image": 0.29, "text": 0.71}),
            ("c", "attention_alt", "positive", {"image": 0.5, "text": 0.5}),
        )
        for probabilities in ({"negative": 0.34, "neutral": 0.24, "positive": 0.42},)
    ],
}
TEAM = {
    "people": ["anna", "ben", "caro"],
    "posts": 12,
    "cohen": [{"a": "anna", "b": "ben", "kappa": 0.61}, {"a": "anna", "b": "caro", "kappa": None}],
    "fleiss": 0.45,
    "conflicts": {},
}


@dataclass(frozen=True)
class State:
    """page: its address behind the service's, report or audit; rules: what stands for the service's answers;
    act: what somebody does there; ready: true when that can begin."""

    page: str
    name: str
    rules: dict[str, Any] = field(default_factory=dict)
    act: Callable[[Any], None] = lambda browser: None
    ready: str = READY


def _why(browser: Any) -> None:
    click(browser, "why-now")
    explained(browser)
    browser.execute_script("document.querySelectorAll('details').forEach((one) => { one.open = true; })")


def _wanted(browser: Any) -> None:
    click(browser, "why-now")
    wait(browser, "!document.getElementById('thinking').hidden || !document.getElementById('why-problem').hidden")


def _refused(browser: Any) -> None:
    click(browser, "clear")
    click(browser, "submit")


def _keys(*keys: str, then: str = "true") -> Callable[[Any], None]:
    def act(browser: Any) -> None:
        browser.execute_script("document.querySelector('#rows .row')?.focus()")
        press(browser, *keys)
        wait(browser, then)

    return act


def _named(browser: Any) -> None:
    field = browser.find_element("id", "annotator")
    field.send_keys("anna")
    browser.execute_script("arguments[0].blur()", field)
    wait(browser, "!document.getElementById('team').hidden")


def _discard(browser: Any) -> None:
    _keys("1", "2")(browser)
    click(browser, "discard")


def _post(browser: Any) -> None:
    browser.execute_script("document.querySelectorAll('#list button')[1].click()")
    wait(browser, "document.querySelector('#post h2, #post .alert')")


def _lasso(browser: Any) -> None:
    browser.execute_script(LASSO)
    wait(browser, "!document.getElementById('clear').hidden")


def _opened(browser: Any) -> None:
    browser.execute_script("document.querySelectorAll('details').forEach((one) => { one.open = true; })")


def _at(name: str, *keys: str) -> Callable[[Any], None]:
    def act(browser: Any) -> None:
        browser.execute_script(f"document.querySelector('{name}').scrollIntoView()")
        if keys:
            _keys(*keys)(browser)

    return act


def _enlarged(browser: Any) -> None:
    browser.execute_script("document.querySelector('.enlarge').click()")


def _fault(status: int, detail: str) -> dict[str, Any]:
    return {"status": status, "body": {"detail": detail}}


FAULT = _fault(500, "unexpected KeyError; this is a bug")
UNREADABLE = _fault(422, "image: not an image that can be read")
BUSY = "document.getElementById('working').checkVisibility()"
STATES = [
    State("", "empty", act=lambda browser: click(browser, "clear")),
    State("", "working", {"predict": WAITS}, ready="document.querySelector('#answer .busy')"),
    State("", "answer"),
    State("", "no majority", {"predict": {"body": NO_MAJORITY}}),
    State("", "why", act=_why),
    State("", "explaining", {"explain": WAITS}, _wanted),
    State("", "no explanation", {"explain": UNREADABLE}, _wanted),
    State("", "nothing given", act=_refused),
    State("", "error", {"predict": UNREADABLE}),
    State("", "offline", {"predict": FAILS}),
    State("", "no service", {"info": FAILS}),
    State("", "key", {"info": {"merge": {"key": True}}, "review/examples": _fault(401, "give the key")}),
    State("review", "working", {"review/rows": WAITS}, ready=BUSY),
    State("review", "many"),
    State("review", "one", act=_keys("g")),
    State("review", "labelled", act=_keys("1", "2")),
    State("review", "keys", act=_keys("?", then="document.querySelector('dialog')")),
    State("review", "enlarged", act=_keys("\ue007", then="document.querySelector('dialog img')?.naturalWidth")),
    State("review", "discard", act=_discard),
    State("review#find=zzzz", "none found"),
    State("review", "people", {"review/labels": {"body": TEAM}}, _named),
    State("review", "error", {"review/texts": FAULT}),
    State("review", "absent", {"review/rows": _fault(404, "Not Found")}),
    State("review", "offline", {"info": FAILS}),
    State("map", "working", {"map/points": WAITS}, ready=BUSY),
    State("map", "points"),
    State("map", "post", act=_post),
    State("map", "lasso", act=_lasso),
    State("map", "error", {"map/posts/1": FAULT}, _post),
    State("map", "absent", {"map/points": _fault(404, "Not Found")}),
    State("map", "offline", {"info": FAILS}),
    State("compare", "working", {"compare/runs": WAITS}, ready=BUSY),
    State("compare", "found"),
    State("compare", "one head", {"info": {"merge": {}, "heads": 1}}),
    State("compare", "absent", {"compare/runs": _fault(404, "Not Found")}),
    State("compare", "offline", {"info": FAILS}),
    State("docs", "described", act=_opened),
    State("docs", "offline", {"openapi.json": FAILS}),
    State("audit", "many"),
    State("audit", "labelled", act=_at("#rows", "1", "2")),
    State("audit", "keys", act=_keys("?", then="document.querySelector('dialog')")),
    State("report", "first screen"),
    State("report", "results", act=_at("#results")),
    State("report", "figures", act=_at("#figure-9")),
    State("report", "enlarged", act=_enlarged),
    State("report", "map", act=_at("#posts-map")),
    State("report", "errors", act=_at("#errors", "1", "2")),
    State("report", "data", act=_at("#data")),
    State("report", "settings", act=_at("#settings")),
]


def reach(browser: Any, state: State, address: str, language: str) -> None:
    """Bring a page into a state, in a language."""
    script = START.replace("LANGUAGE", json.dumps(language)).replace("RULES", json.dumps(state.rules))
    added = browser.execute_cdp_cmd("Page.addScriptToEvaluateOnNewDocument", {"source": script})
    try:
        browser.get("about:blank")
        browser.get(address)
        wait(browser, state.ready)
    finally:
        browser.execute_cdp_cmd("Page.removeScriptToEvaluateOnNewDocument", {"identifier": added["identifier"]})
    state.act(browser)


@contextmanager
def served(data: Path, cache: Path, runs: Path, out: Path) -> Iterator[dict[str, str]]:
    """Where the pages of a study are: those of a service, and the audit, which is made if it is not in `out`."""
    audit, where = out / "audit" / "audit.html", ["--data", str(data), "--cache", str(cache)]
    if not audit.exists():
        where += ["--runs", str(out / "folds")]
        assert run("fit", *where, "--epochs", "3", "--folds", "3") == 0
        assert run("audit", *where, "--out", str(audit.parent)) == 0
    found = Workspace(runs_at=runs).named_runs(sorted(path.name for path in runs.iterdir()))
    heads = [one for one in found if one.fusion in VOTING_FUSIONS]
    service = Service(heads, Limits(), device="cpu")
    service.warm_up()
    rows, shared = validation_rows(heads)
    review = Review(rows, load_dataset(data), runs=[one.name for one in shared])
    opened = Cache.open(cache)
    app = create_app(service, hosts=["localhost"], review=lambda: review, places=lambda: landscape(opened, heads))
    with serving(app) as address:
        yield {state.page: f"{address}/{state.page}" for state in STATES} | {"audit": audit.as_uri()}
