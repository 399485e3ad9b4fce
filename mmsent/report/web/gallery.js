// The gallery: posts to look at, to filter and to label. One card, one set of filters and of keys for every page.
//
// What is behind the address's # holds filters, order and place: #order=doubtful&only=wrong&ids=["a","b"]&at=a&one=1

import { cardOf, enlarge, showPicture } from "./cards.js";
import { choicesOf, markCard } from "./choices.js";
import { $, closing, el, keep, kept, labelName, onLanguage, over, said, select, t } from "./common.js";
import { makeDecisions } from "./decisions.js";
import { ORDERS, showing } from "./filters.js";

const PART = 24;
const FIELDS = ["order", "only", "label", "predicted", "least", "most", "find"];
const NONE = "\t"; // the choice of posts without a label: no label looks like it

// --- the posts, and what was decided of them

let source; // where posts come from; see startGallery
let rows = [];
let shown = []; // those that pass the filter, in order
let drawn = 0; // how many of them have a card
let at = 0; // the place of the current one among them
let ids = null; // the only ids to show, null: any
let found = null; // the rows with the sought text, null: any
let decisions; // see decisions.js
let kinds; // see filters.js

const annotator = () => $("annotator").value.trim();

function changed(row) {
  if (row.card) mark(row);
  showProgress();
}

function undo() {
  const row = decisions.undo();
  if (row && shown.includes(row)) go(shown.indexOf(row));
}

// --- which posts are shown

const bound = (name, otherwise) => Math.min(100, Math.max(0, Number($(name).value || otherwise))) / 100;

function takes(row) {
  const [label, predicted] = [$("label").value, $("predicted").value];
  return (!ids || ids.has(row.id)) && (!found || found.has(row.row)) && kinds[$("only").value].takes(row)
    && (!label || row.label === (label === NONE ? null : label)) && (!predicted || row.predicted === predicted)
    && row.confidence >= bound("least", 0) - 1e-9 && row.confidence <= bound("most", 100) + 1e-9;
}

/** Learn which posts are most useful to label next, once. */
async function rank() {
  if (rank.known) return;
  const place = new Map((await source.useful()).map((one, k) => [one, k]));
  for (const row of rows) row.useful = place.get(row.id) ?? Infinity;
  rank.known = true;
}

async function filter(id = null) {
  $("rows").setAttribute("aria-busy", "true");
  const mine = (filter.asked = (filter.asked ?? 0) + 1);
  const text = $("find").value.trim().toLowerCase();
  try {
    const answer = text ? await source.find(text) : null;
    if ($("order").value === "useful") await rank();
    if (mine !== filter.asked) return;
    found = answer;
    complain("");
  } catch (error) { return complain(error.message); }
  $("order-hint").hidden = $("order").value !== "useful";
  const { by } = ORDERS[$("order").value];
  shown = rows.filter(takes).sort((a, b) => by(a) - by(b) || a.row - b.row);
  at = Math.max(0, shown.findIndex((row) => row.id === id));
  drawn = 0;
  $("rows").replaceChildren();
  showProgress();
  await draw(at + PART);
  if (mine === filter.asked) $("rows").setAttribute("aria-busy", "false");
  remember();
}

function remember() {
  const now = new URLSearchParams();
  for (const name of FIELDS) if ($(name).value !== $(name).dataset.usual) now.set(name, $(name).value);
  if (ids) now.set("ids", JSON.stringify([...ids]));
  if (at) now.set("at", shown[at].id);
  if (one()) now.set("one", "1");
  if (String(now) || location.hash) history.replaceState(null, "", `#${now}`);
}

/** Take filters and place from the address. */
function recall() {
  const then = new URLSearchParams(location.hash.slice(1));
  for (const name of FIELDS) $(name).value = then.get(name) ?? $(name).dataset.usual;
  for (const name of ["order", "only", "label", "predicted"]) if ($(name).selectedIndex < 0) $(name).value = $(name).dataset.usual;
  try { ids = then.has("ids") ? new Set(JSON.parse(then.get("ids"))) : null; } catch { ids = null; }
  showAs(then.get("one") === "1");
  return filter(then.get("at"));
}

/** Show only the posts with some ids; null: all. */
export function showOnly(wanted) {
  ids = wanted;
  return filter();
}

// --- cards

async function draw(until) {
  const part = shown.slice(drawn, until);
  drawn += part.length;
  try { await source.load?.(part.filter((row) => row.text === undefined)); } catch (error) { complain(error.message); }
  $("rows").append(...part.map(drawCard));
  $("more").hidden = one() || drawn >= shown.length;
  focusable();
}

function drawCard(row) {
  row.card = cardOf(row, source, { below: [choicesOf(row, source, decisions)] });
  mark(row);
  return row.card;
}

const mark = (row) => markCard(row, source.info.colours, decisions);

function focusable() {
  for (const [i, row] of shown.slice(0, drawn).entries()) {
    row.card.tabIndex = i === at ? 0 : -1;
    if (i === at) row.card.setAttribute("aria-current", "true");
    else row.card.removeAttribute("aria-current");
  }
}

/** Move to a post by its place. */
async function go(place) {
  if (!shown.length) return;
  at = Math.min(shown.length - 1, Math.max(0, place));
  if (at >= drawn) await draw(at + PART);
  focusable();
  const { card, picture } = shown[at];
  if (one() && picture) showPicture(card.querySelector(".thumb"), shown[at], source, true);
  card.focus();
  remember();
}

/** How many cards stand in a line. */
const columns = () => {
  const tops = shown.slice(0, drawn).map((row) => row.card.offsetTop);
  return one() ? 1 : Math.max(1, tops.filter((top) => top === tops[0]).length);
};

// --- one post or many

const one = () => $("rows").classList.contains("one");

function showAs(single) {
  $("rows").classList.toggle("one", single);
  $("as-one").setAttribute("aria-pressed", String(single));
  $("as-grid").setAttribute("aria-pressed", String(!single));
  $("more").hidden = single || drawn >= shown.length;
}

// --- what was done so far

function showProgress() {
  const looked = shown.filter(decisions.has).length;
  const n = rows.filter(decisions.corrected).length;
  const [any, team] = [decisions.any(), decisions.team()];
  $("count").textContent = t("matching", { n: shown.length, posts: t("posts", { n: rows.length }) });
  $("looked").textContent = t("looked", { k: looked, n: shown.length });
  $("progress").max = shown.length || 1;
  $("progress").value = looked;
  $("none-found").hidden = shown.length > 0;
  $("changed").textContent = t("changes", { n });
  $("tray").hidden = !any;
  $("download").hidden = !n && !team;
  $("every").hidden = !ids;
  $("team").hidden = !team;
  if (team) {
    const number = (value) => (value === null ? "–" : value.toFixed(2));
    const pairs = team.cohen.map(({ a, b, kappa }) => `${a} – ${b}: ${number(kappa)}`).join(", ");
    const fleiss = team.people.length > 2 ? t("fleiss", { kappa: number(team.fleiss) }) : "";
    $("team").textContent = t("team", { n: Object.keys(team.conflicts).length, posts: team.posts, pairs }) + fleiss;
  }
  document.documentElement.style.scrollPaddingBottom = `${any ? $("tray").offsetHeight + 12 : 0}px`;
}

function complain(message) {
  $("gallery-problem").textContent = message;
  $("gallery-problem").hidden = !message;
}

async function download() {
  try {
    $("next").textContent = await source.save(annotator(), decisions.given(), decisions.corrections());
    $("next").hidden = false;
  } catch (error) { complain(error.message); }
}

// --- windows over the page

function help() {
  const keys = [["1 2 3 …", "k_label"], [t("k_space_key"), "k_space"], ["← → ↑ ↓", "k_arrows"], ["z", "k_undo"],
    ...(source.why ? [["e", "k_why"]] : []), ["/", "k_find"], ["g", "k_one"], ["Enter", "k_enlarge"], ["?", "k_help"]];
  over("help", t("keys"), el("h2", {}, t("keys")),
    el("dl", {}, ...keys.flatMap(([key, name]) => [el("dt", {}, el("kbd", {}, key)), el("dd", {}, t(name))])), closing("close"));
}

async function discard() {
  const posts = t("posts", { n: rows.filter(decisions.has).length });
  if (!await over("ask", t("discard"), el("p", {}, t("discard_sure", { posts })), el("div", { className: "actions" }, closing("discard", "yes"), closing("cancel")))) return;
  decisions.discard();
  $("next").hidden = true;
  for (const row of shown.slice(0, drawn)) mark(row);
  showProgress();
}

// --- keys

function onKey(event) {
  const target = event.target;
  if (event.ctrlKey || event.metaKey || event.altKey || document.querySelector("dialog[open]")) return;
  if (!(source.alone && target === document.body) && !$("gallery").contains(target)) return;
  if (target.matches("input, select, textarea")) { // the keys are the field's own
    if (event.key === "Escape") go(at);
    return;
  }
  const row = shown[at];
  const pressed = target.matches("button, a") && ["Enter", " "].includes(event.key);
  const label = row?.correctable ? source.info.labels[Number(event.key) - 1] : undefined;
  const steps = { ArrowRight: 1, ArrowLeft: -1, ArrowDown: columns(), ArrowUp: -columns() };
  const act = {
    " ": () => { decisions.confirm(row); go(at + 1); },
    Enter: () => row.picture && enlarge(row, source, row.card),
    z: undo,
    e: () => row.card.querySelector(".why")?.click(),
    "/": () => $("find").focus(),
    "?": help,
    g: () => { showAs(!one()); go(at); },
  }[event.key];
  if (pressed || (!row && !["/", "?"].includes(event.key)) || !(label || act || event.key in steps)) return;
  event.preventDefault();
  if (label) { decisions.decide(row, label); go(at + 1); }
  else if (act) act();
  else go(at + steps[event.key]);
}

// --- the page's part

function build() {
  const field = (name, key, node) => el("label", {}, said("span", key), Object.assign(node, { id: name }));
  const bounded = (id, value, name) => el("input", { type: "number", id, min: 0, max: 100, step: "any", value, "aria-label": t(name) });
  const button = (id, key, act, className = "plain") => said("button", key, { id, type: "button", className, onclick: act });
  const range = el("div", { className: "range", role: "group", "aria-labelledby": "range-title" },
    bounded("least", 0, "at_least"), el("span", { "aria-hidden": "true" }, "–"), bounded("most", 100, "at_most"));
  $("gallery").append(
    el("form", { className: "card filters", id: "filters" },
      field("order", "order", el("select")), field("only", "show", el("select")), field("label", "f_label", el("select")),
      field("predicted", "f_predicted", el("select")), el("div", {}, said("span", "f_confidence", { className: "label", id: "range-title" }), range),
      field("find", "find", el("input", { type: "search", maxLength: 200 }))),
    said("p", "useful_hint", { className: "hint", id: "order-hint", hidden: true }),
    el("div", { className: "state" },
      el("p", { className: "count", id: "count", role: "status" }), button("every", "every", () => showOnly(null)),
      el("label", { className: "progress" }, el("span", { id: "looked" }), el("progress", { id: "progress" })),
      el("div", { className: "views", role: "group" },
        button("as-grid", "as_grid", () => { showAs(false); go(at); }), button("as-one", "as_one", () => { showAs(true); go(at); }),
        button("keys", "keys", help)),
      field("annotator", "annotator", el("input", { maxLength: 60, autocomplete: "off" }))),
    el("p", { className: "hint", id: "team", hidden: true }),
    el("p", { className: "alert", id: "gallery-problem", role: "alert", hidden: true }),
    said("p", "none_found", { className: "empty", id: "none-found", hidden: true }),
    el("ol", { className: "rows", id: "rows" }),
    button("more", "more", () => draw(drawn + PART), "plain more"),
    el("div", { className: "tray", id: "tray", hidden: true }, el("p", { id: "changed", role: "status" }),
      button("discard", "discard", discard), button("download", source.list ? "download" : "download_labels", download, "primary")),
    el("p", { className: "hint", id: "next", hidden: true }));
  const { order } = source;
  $("annotator").value = kept("mmsent annotator") ?? "";
  for (const [name, usual] of Object.entries({ order: order ?? "", only: "all", label: "", predicted: "", least: "0", most: "100", find: "" })) $(name).dataset.usual = usual;
  let typing = 0;
  const later = () => { clearTimeout(typing); typing = setTimeout(() => filter(), 250); };
  for (const name of ["order", "only", "label", "predicted"]) $(name).addEventListener("change", () => filter());
  for (const name of ["least", "most", "find"]) $(name).addEventListener("input", later);
  $("filters").addEventListener("submit", (event) => { event.preventDefault(); filter(); });
  $("annotator").addEventListener("change", rename);
  $("rows").addEventListener("focusin", (event) => {
    const place = shown.findIndex((row) => row.card === event.target.closest(".row"));
    if (place >= 0 && place !== at) { at = place; focusable(); remember(); }
  });
  document.addEventListener("keydown", onKey);
  addEventListener("hashchange", () => { if (/(^|[#&])(ids|at|only|order)=/.test(location.hash)) recall(); });
}

/** Somebody else's labels, or the first name of whoever labelled without one. */
function rename() {
  const before = kept("mmsent annotator") ?? "";
  keep("mmsent annotator", annotator());
  decisions.rename(before);
  decisions.tell();
  filter(shown[at]?.id);
}

function showChoices() {
  const { labels } = source.info;
  const named = labels.map((label) => [label, labelName(label)]);
  const some = (choices, prefix) => Object.keys(choices).filter((name) => rows.some(choices[name].fits)).map((name) => [name, t(`${prefix}_${name}`)]);
  const bare = rows.some((row) => row.label === null) ? [[NONE, t("unlabelled")]] : [];
  const orders = some(ORDERS, "order");
  if (!orders.some(([name]) => name === $("order").dataset.usual)) $("order").dataset.usual = orders[0][0];
  select($("order"), orders, $("order").value || $("order").dataset.usual);
  select($("only"), some(kinds, "only"), $("only").value || "all");
  select($("label"), [["", t("any")], ...named, ...bare], $("label").value);
  select($("predicted"), [["", t("any")], ...named], $("predicted").value);
}

/** Start the gallery in #gallery. from: {info: {labels, colours, heads}, digest (of the data set, which its labels are kept
 * under), rows, posts: whether they are at hand, order: the first one, alone: whether keys work wherever the focus is, list:
 * whether the whole list is saved, find(text), picture(row, whole), save(name, labels, corrections), and where there is a
 * service load(rows), why(row), share(name, labels), useful(): ids, the most useful to label first}. */
export async function startGallery(from) {
  source = from;
  rows = from.rows;
  if (source.useful) for (const row of rows) if (row.label === null && row.predicted !== null && row.correctable) row.useful = Infinity;
  build();
  decisions = makeDecisions(source, annotator, {
    changed,
    agreed() {
      showChoices();
      showProgress();
      for (const row of rows) if (row.card) mark(row);
    },
    failed: complain,
  });
  kinds = showing(decisions);
  onLanguage(() => {
    showChoices();
    for (const name of ["least", "most"]) $(name).setAttribute("aria-label", t(`at_${name}`));
    for (const row of shown.slice(0, drawn)) row.card.replaceWith(drawCard(row));
    focusable();
    showProgress();
  });
  showChoices();
  await recall();
  await decisions.tell();
}
