// The gallery: posts to look at, to filter and to label. One card, one set of filters and of keys for every page.
//
// What is behind the address's # holds filters, order and place: #order=doubtful&only=wrong&ids=["a","b"]&at=a&one=1

import {
  $, agreement, chip, darkened, decisionOf, el, fusionName, keep, kept, labelName, onLanguage, percent, said, saveAs, select, t,
} from "./common.js";

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
let decided = new Map(); // a label by the id of every post looked at; "" where it cannot be corrected
let undone = []; // [id, label before] for each decision
let team = null; // what the service says of several people: {people, posts, cohen, fleiss, conflicts}

const against = (row) => {
  const heads = Object.values(row.heads);
  return heads.length ? heads.filter((label) => label !== row.predicted).length / heads.length : 0;
};
const doubt = (row) => (row.label === null ? -1 : 1 - (row.probabilities[row.label] ?? 0));
const corrected = (row) => Boolean(decided.get(row.id)) && decided.get(row.id) !== row.label;
const labelOf = (row) => decided.get(row.id) || row.label;

const ORDERS = {
  useful: { by: (row) => -row.useful, fits: (row) => typeof row.useful === "number" },
  disagreement: { by: (row) => row.confidence - 1000 * against(row), fits: (row) => Object.keys(row.heads).length > 1 },
  doubtful: { by: (row) => -doubt(row), fits: (row) => row.label !== null && row.predicted !== null },
  unsure: { by: (row) => row.confidence, fits: (row) => row.predicted !== null },
  sure: { by: (row) => -row.confidence, fits: (row) => row.predicted !== null },
  listed: { by: (row) => row.row, fits: () => true },
};
const SHOWN = {
  all: { takes: () => true, fits: () => true },
  open: { takes: (row) => !decided.has(row.id), fits: () => true },
  changed: { takes: corrected, fits: () => true },
  wrong: { takes: (row) => ![null, row.predicted].includes(row.label), fits: (row) => row.label !== null && row.predicted !== null },
  split: { takes: against, fits: (row) => Object.keys(row.heads).length > 1 },
  marked: { takes: (row) => row.marked, fits: (row) => row.marked },
  conflict: { takes: (row) => team?.conflicts[row.id], fits: () => Boolean(team) },
};

const nameOf = (run) => {
  const head = source.info.heads.find((one) => one.run === run);
  return head ? fusionName(head.fusion) : run;
};
const placeOf = () => `mmsent labels ${source.digest} ${$("annotator").value.trim()}`;

function load() {
  try { decided = new Map(JSON.parse(kept(placeOf()) ?? "[]")); } catch { decided = new Map(); }
  undone = [];
}

function store() {
  keep(placeOf(), JSON.stringify([...decided]));
  clearTimeout(store.later);
  store.later = setTimeout(share, 400);
}

/** The labels of posts that can be corrected, by id. */
const given = () => Object.fromEntries(rows.filter((row) => row.correctable && decided.get(row.id)).map((row) => [row.id, decided.get(row.id)]));

async function share() {
  const name = $("annotator").value.trim();
  if (!source.share || !name) return;
  try {
    team = await source.share(name, given());
    if (team.people.length < 2) team = null;
    showChoices();
    showProgress();
    for (const row of rows) if (row.card) mark(row);
  } catch (error) { complain(error.message); }
}

/** Say what a post's label is; the same label twice takes it back. */
function decide(row, label) {
  const before = decided.get(row.id);
  undone.push([row.id, before]);
  if (before === label) decided.delete(row.id);
  else decided.set(row.id, label);
  changed(row);
}

/** The post is right as it is. Without a label, it is what the heads say. */
function confirm(row) {
  const label = row.correctable ? row.label ?? row.predicted : "";
  if (label === null || decided.get(row.id) === label) return;
  decided.delete(row.id);
  decide(row, label);
}

function undo() {
  const [id, before] = undone.pop() ?? [];
  const row = rows.find((one) => one.id === id);
  if (!row) return;
  if (before === undefined) decided.delete(id);
  else decided.set(id, before);
  changed(row);
  if (shown.includes(row)) go(shown.indexOf(row));
}

function changed(row) {
  store();
  if (row.card) mark(row);
  showProgress();
}

// --- which posts are shown

const bound = (name, otherwise) => Math.min(100, Math.max(0, Number($(name).value || otherwise))) / 100;

function takes(row) {
  const [label, predicted] = [$("label").value, $("predicted").value];
  return (!ids || ids.has(row.id)) && (!found || found.has(row.row)) && SHOWN[$("only").value].takes(row)
    && (!label || row.label === (label === NONE ? null : label)) && (!predicted || row.predicted === predicted)
    && row.confidence >= bound("least", 0) - 1e-9 && row.confidence <= bound("most", 100) + 1e-9;
}

async function filter(id = null) {
  $("rows").setAttribute("aria-busy", "true");
  const mine = (filter.asked = (filter.asked ?? 0) + 1);
  const text = $("find").value.trim().toLowerCase();
  try {
    const answer = text ? await source.find(text) : null;
    if (mine !== filter.asked) return;
    found = answer;
    complain("");
  } catch (error) { return complain(error.message); }
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

// --- cards

async function draw(until) {
  const part = shown.slice(drawn, until);
  drawn += part.length;
  try { await source.load?.(part.filter((row) => row.text === undefined)); } catch (error) { complain(error.message); }
  for (const row of part) row.card = cardOf(row);
  $("rows").append(...part.map((row) => row.card));
  $("more").hidden = one() || drawn >= shown.length;
  focusable();
}

function cardOf(row) {
  const thumb = el("button", { type: "button", className: "thumb", onclick: () => enlarge(row) }, row.picture ? "" : t("no_picture"));
  thumb.disabled = !row.picture;
  if (row.picture) {
    thumb.setAttribute("aria-label", t("picture_of", { id: row.id }));
    showPicture(thumb, row);
  }
  const facts = el("dl", { className: "facts" });
  const fact = (name, ...values) => facts.append(el("dt", {}, t(name)), el("dd", {}, ...values));
  const { colours, labels } = source.info;
  if (row.label !== null) fact("row_label", chip(row.label, colours));
  if (row.predicted !== null) {
    const how = row.decision ? decisionOf(row.predicted, row.heads, row.probabilities) : percent(row.confidence, 1);
    fact("row_predicted", chip(row.predicted, colours), ` ${how}`);
  }
  const heads = Object.entries(row.heads);
  if (heads.length > 1) {
    const each = heads.map(([run, label]) => `${nameOf(run)}: ${labelName(label)}`).join(", ");
    const words = agreement(heads.length - heads.filter(([, label]) => label !== row.predicted).length, heads.length, row.predicted);
    fact("row_heads", el("span", { title: each }, words, el("span", { className: "unseen" }, ` (${each})`)));
  }
  const shares = labels.filter((name) => name in row.probabilities);
  const stack = el("div", { className: "stack", role: "img" });
  stack.setAttribute("aria-label", shares.map((name) => `${labelName(name)} ${percent(row.probabilities[name])}`).join(", "));
  for (const name of shares) {
    const part = el("i", { title: `${labelName(name)} ${percent(row.probabilities[name], 1)}` });
    part.style.width = percent(row.probabilities[name], 2);
    part.style.background = colours[name];
    stack.append(part);
  }
  const why = source.why?.(row);
  const card = el("li", { className: "row", tabIndex: -1, "aria-label": row.id }, thumb,
    el("p", { className: "id" }, row.marked ? `${row.id} · ${t("marked")}` : row.id,
      ...(why ? [" ", el("a", { className: "why", href: why }, t("why"))] : [])),
    el("p", { className: "text", dir: "auto", tabIndex: 0 }, row.text ?? ""), facts, ...(shares.length ? [stack] : []), choices(row));
  card.dataset.id = row.id;
  row.card = card;
  mark(row);
  return card;
}

function choices(row) {
  if (!row.correctable) return el("p", { className: "hint" }, t(source.posts ? "not_here" : "no_posts"));
  const chosen = (decision) => (event) => { decision(); if (event.detail) row.card.focus({ preventScroll: true }); };
  const buttons = source.info.labels.map((label, i) => {
    const key = i < 9 ? el("kbd", { "aria-hidden": "true" }, String(i + 1)) : null;
    const button = el("button", { type: "button", onclick: chosen(() => decide(row, label)) }, key, labelName(label));
    button.dataset.label = label;
    return button;
  });
  if ((row.label ?? row.predicted) !== null) {
    const words = t(row.label === null ? "as_predicted" : "keep");
    buttons.push(el("button", { type: "button", className: "keep", onclick: chosen(() => confirm(row)) }, words));
  }
  return el("fieldset", { className: "choose" }, el("legend", {}, t("correct")), el("div", {}, ...buttons), el("p", { className: "others" }));
}

/** Show what was decided on a post's card. */
function mark(row) {
  const label = labelOf(row);
  row.card.classList.toggle("changed", corrected(row));
  row.card.classList.toggle("done", decided.has(row.id));
  for (const button of row.card.querySelectorAll("[data-label]")) {
    const on = button.dataset.label === label;
    button.setAttribute("aria-pressed", String(on));
    button.style.background = on ? darkened(source.info.colours[label]) : "";
  }
  row.card.querySelector(".keep")?.setAttribute("aria-pressed", String(decided.has(row.id) && !corrected(row)));
  const others = row.card.querySelector(".others");
  if (others) others.textContent = Object.entries(team?.conflicts[row.id] ?? {}).map(([name, said]) => `${name}: ${labelName(said)}`).join(", ");
}

async function showPicture(thumb, row, whole = false) {
  try {
    const image = el("img", { alt: t("picture_of", { id: row.id }), src: await source.picture(row, whole) });
    await image.decode();
    thumb.replaceChildren(image);
  } catch {
    if (thumb.childElementCount === 0) thumb.textContent = t("no_picture");
  }
}

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
  if (one() && picture) showPicture(card.querySelector(".thumb"), shown[at], true);
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
  const looked = shown.filter((row) => decided.has(row.id)).length;
  const n = rows.filter(corrected).length;
  const any = rows.some((row) => decided.has(row.id));
  $("count").textContent = t("matching", { n: shown.length, total: rows.length });
  $("looked").textContent = t("looked", { k: looked, n: shown.length });
  $("progress").max = shown.length || 1;
  $("progress").value = looked;
  $("changed").textContent = n === 1 ? t("one_change") : t("changes", { n });
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
    const mine = Object.fromEntries(rows.filter(corrected).map((row) => [row.id, decided.get(row.id)]));
    $("next").textContent = await source.save($("annotator").value.trim(), given(), mine);
    $("next").hidden = false;
  } catch (error) { complain(error.message); }
}

// --- windows over the page

/** A window; false unless its answer was chosen. */
function over(className, label, ...children) {
  return new Promise((answer) => {
    const window = el("dialog", { className, "aria-label": label }, ...children);
    window.addEventListener("close", () => { window.remove(); answer(window.returnValue === "yes"); });
    document.body.append(window);
    window.showModal();
  });
}

const closing = (name, value = "") => el("button", { type: "button", className: value ? "primary" : "plain",
  onclick: (event) => event.target.closest("dialog").close(value) }, t(name));

async function enlarge(row) {
  const place = el("div", { className: "whole" });
  showPicture(place, row, true);
  await over("zoom", t("picture_of", { id: row.id }), place, el("p", { dir: "auto" }, row.text ?? ""), closing("close"));
  row.card.focus();
}

function help() {
  const keys = [["1 2 3 …", "k_label"], [t("k_space_key"), "k_space"], ["← → ↑ ↓", "k_arrows"], ["z", "k_undo"],
    ...(source.why ? [["e", "k_why"]] : []), ["/", "k_find"], ["g", "k_one"], ["Enter", "k_enlarge"], ["?", "k_help"]];
  over("help", t("keys"), el("h2", {}, t("keys")),
    el("dl", {}, ...keys.flatMap(([key, name]) => [el("dt", {}, el("kbd", {}, key)), el("dd", {}, t(name))])), closing("close"));
}

async function discard() {
  const n = rows.filter((row) => decided.has(row.id)).length;
  if (!await over("ask", t("discard"), el("p", {}, t("discard_sure", { n })), el("div", { className: "actions" }, closing("discard", "yes"), closing("cancel")))) return;
  decided.clear();
  undone = [];
  store();
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
    " ": () => { confirm(row); go(at + 1); },
    Enter: () => row.picture && enlarge(row),
    z: undo,
    e: () => row.card.querySelector(".why")?.click(),
    "/": () => $("find").focus(),
    "?": help,
    g: () => { showAs(!one()); go(at); },
  }[event.key];
  if (pressed || (!row && !["/", "?"].includes(event.key)) || !(label || act || event.key in steps)) return;
  event.preventDefault();
  if (label) { if (decided.get(row.id) !== label) decide(row, label); go(at + 1); }
  else if (act) act();
  else go(at + steps[event.key]);
}

// --- the page's part

function build() {
  const field = (name, key, node) => el("label", {}, said("span", key), Object.assign(node, { id: name }));
  const bounded = (id, value, name) => el("input", { type: "number", id, min: 0, max: 100, value, "aria-label": t(name) });
  const button = (id, key, act, className = "plain") => said("button", key, { id, type: "button", className, onclick: act });
  const range = el("div", { className: "range", role: "group", "aria-labelledby": "range-title" },
    bounded("least", 0, "at_least"), el("span", { "aria-hidden": "true" }, "–"), bounded("most", 100, "at_most"));
  $("gallery").append(
    el("form", { className: "card filters", id: "filters" },
      field("order", "order", el("select")), field("only", "show", el("select")), field("label", "f_label", el("select")),
      field("predicted", "f_predicted", el("select")), el("div", {}, said("span", "f_confidence", { className: "label", id: "range-title" }), range),
      field("find", "find", el("input", { type: "search", maxLength: 200 }))),
    el("div", { className: "state" },
      el("p", { className: "count", id: "count", role: "status" }), button("every", "every", () => { ids = null; filter(); }),
      el("label", { className: "progress" }, el("span", { id: "looked" }), el("progress", { id: "progress" })),
      el("div", { className: "views", role: "group" },
        button("as-grid", "as_grid", () => { showAs(false); go(at); }), button("as-one", "as_one", () => { showAs(true); go(at); }),
        button("keys", "keys", help)),
      field("annotator", "annotator", el("input", { maxLength: 60, autocomplete: "off" }))),
    el("p", { className: "hint", id: "team", hidden: true }),
    el("p", { className: "alert", id: "gallery-problem", role: "alert", hidden: true }),
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
  const name = $("annotator").value.trim();
  const before = kept("mmsent annotator") ?? "";
  keep("mmsent annotator", name);
  if (!before && kept(placeOf()) === null) store();
  else load();
  team = null;
  share();
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
  select($("only"), some(SHOWN, "only"), $("only").value || "all");
  select($("label"), [["", t("any")], ...named, ...bare], $("label").value);
  select($("predicted"), [["", t("any")], ...named], $("predicted").value);
}

/** Start the gallery in #gallery. from: {info: {labels, colours, heads}, digest (of the data set, which its labels are kept
 * under), rows, posts: whether they are at hand, order: the first one, alone: whether keys work wherever the focus is, list:
 * whether the whole list is saved, find(text), picture(row, whole), save(name, labels, corrections), and where there is a
 * service load(rows), why(row), share(name, labels)}. */
export async function startGallery(from) {
  source = from;
  rows = from.rows;
  build();
  load();
  onLanguage(() => {
    showChoices();
    for (const name of ["least", "most"]) $(name).setAttribute("aria-label", t(`at_${name}`));
    for (const row of shown.slice(0, drawn)) row.card.replaceWith(cardOf(row));
    focusable();
    showProgress();
  });
  showChoices();
  await recall();
  await share();
}
