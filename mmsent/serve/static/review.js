// The page to look through the predictions of a whole run and to correct labels.

import {
  $, agreement, ask, askForKey, askJson, chip, darkened, decisionOf, el, fusionName, labelName, language, onLanguage, percent,
  pool, select, startLanguage, t,
} from "./common.js";

const PART = 24;
let info = null;
let page = null; // what the service said last
let rows = [];
let corrections = new Map();
let asked = 0;
const fetching = pool(4);

// --- corrections, kept in the browser until they are downloaded or discarded

const place = () => `mmsent corrections ${page.digest}`;

function load() {
  try { corrections = new Map(JSON.parse(localStorage.getItem(place()) ?? "[]")); } catch { corrections = new Map(); }
}

function store() {
  try { localStorage.setItem(place(), JSON.stringify([...corrections])); } catch { /* then for this visit alone */ }
}

function correct(row, label, card) {
  const before = row.label ?? null;
  if (label === before || corrections.get(row.id) === label) corrections.delete(row.id);
  else corrections.set(row.id, label);
  store();
  mark(card, row);
  showTray();
}

function mark(card, row) {
  const label = corrections.get(row.id) ?? row.label;
  card.classList.toggle("changed", corrections.has(row.id));
  for (const button of card.querySelectorAll(".choose button")) {
    const on = button.dataset.label === label;
    button.setAttribute("aria-pressed", String(on));
    button.style.background = on ? darkened(info.colours[button.dataset.label]) : "";
  }
}

function showTray() {
  const n = corrections.size;
  $("tray").hidden = n === 0;
  $("changed").textContent = n === 1 ? t("one_change") : t("changes", { n });
}

// --- rows

function query(offset) {
  const given = { order: $("order").value, only: $("only").value, offset, limit: PART };
  for (const name of ["label", "predicted", "find"]) if ($(name).value) given[name] = $(name).value;
  const share = (id, otherwise) => Math.min(100, Math.max(0, Number($(id).value || otherwise))) / 100;
  return new URLSearchParams({ ...given, least: share("least", 0), most: share("most", 100) });
}

async function fetchRows(offset = 0) {
  const mine = (asked += 1);
  $("rows").setAttribute("aria-busy", "true");
  try {
    const found = await askJson(`review/rows?${query(offset)}`);
    if (mine !== asked) return;
    const first = page === null;
    page = found;
    if (first) load();
    rows = offset ? [...rows, ...found.rows] : found.rows;
    $("problem").hidden = true;
    show(offset);
  } catch (error) {
    if (mine !== asked) return;
    $("problem").textContent = error.status === 404 ? t("review_none") : error.message;
    $("problem").hidden = false;
  }
  $("rows").setAttribute("aria-busy", "false");
}

function show(from = 0) {
  if (!page) return;
  $("source").textContent = t("review_source", { source: sourceOf(page), total: page.total });
  $("count").textContent = t("matching", { n: page.matching, total: page.total });
  const cards = rows.slice(from).map(cardOf);
  if (from) $("rows").append(...cards);
  else $("rows").replaceChildren(...cards);
  $("more").hidden = rows.length >= page.matching;
  showTray();
}

function sourceOf({ table, runs }) {
  return table || t("validation_of", { runs: runs.map(nameOf).join(language === "zh" ? "、" : ", ") });
}

function cardOf(row) {
  const thumb = el("div", { className: "thumb" }, row.picture ? "" : t("no_picture"));
  if (row.picture) fetching(() => showThumb(thumb, row));
  const facts = el("dl", { className: "facts" },
    ...(row.label ? [el("dt", {}, t("row_label")), el("dd", {}, chip(row.label, info.colours))] : []),
    el("dt", {}, t("row_predicted")), el("dd", {}, chip(row.predicted, info.colours),
      el("span", {}, ` ${row.decision ? decisionOf(row.predicted, row.heads, row.probabilities) : percent(row.confidence, 1)}`)));
  const heads = Object.entries(row.heads);
  if (heads.length > 1) {
    const said = heads.map(([run, label]) => `${nameOf(run)}: ${labelName(label)}`).join(", ");
    const words = agreement(row.agreeing, heads.length, row.predicted);
    facts.append(el("dt", {}, t("row_heads")), el("dd", { title: said }, words, el("span", { className: "unseen" }, ` (${said})`)));
  }
  const stack = el("div", { className: "stack", role: "img" });
  stack.setAttribute("aria-label", info.labels.map((name) => `${labelName(name)} ${percent(row.probabilities[name])}`).join(", "));
  for (const name of info.labels) {
    const part = el("i", { title: `${labelName(name)} ${percent(row.probabilities[name], 1)}` });
    part.style.width = percent(row.probabilities[name], 2);
    part.style.background = info.colours[name];
    stack.append(part);
  }
  const card = el("li", { className: "row" }, thumb, el("p", { className: "id" }, row.id),
    el("p", { className: "text", dir: "auto", tabIndex: 0 }, row.text ?? ""), facts, stack);
  card.dataset.id = row.id;
  if (row.correctable) {
    const buttons = info.labels.map((label) => {
      const button = el("button", { type: "button", onclick: () => correct(row, label, card) }, labelName(label));
      button.dataset.label = label;
      return button;
    });
    card.append(el("fieldset", { className: "choose" }, el("legend", {}, t("correct")), el("div", {}, ...buttons)));
    mark(card, row);
  } else card.append(el("p", { className: "hint" }, t("not_here")));
  return card;
}

function nameOf(run) {
  const head = info.heads.find((one) => one.run === run);
  return head ? fusionName(head.fusion) : run;
}

async function showThumb(thumb, row) {
  if (!thumb.isConnected) return;
  try {
    const blob = await (await ask(`review/pictures/${row.row}`)).blob();
    const image = el("img", { alt: "", src: URL.createObjectURL(blob) });
    image.addEventListener("load", () => URL.revokeObjectURL(image.src), { once: true });
    thumb.replaceChildren(image);
  } catch {
    thumb.textContent = t("no_picture");
  }
}

// --- what is clicked

let typing = 0;
const later = () => { clearTimeout(typing); typing = setTimeout(fetchRows, 250); };
for (const name of ["order", "only", "label", "predicted"]) $(name).addEventListener("change", () => fetchRows());
for (const name of ["least", "most", "find"]) $(name).addEventListener("input", later);
$("filters").addEventListener("submit", (event) => { event.preventDefault(); fetchRows(); });
$("more").addEventListener("click", () => fetchRows(rows.length));
$("discard").addEventListener("click", () => { corrections.clear(); store(); $("next").hidden = true; show(); });
$("download").addEventListener("click", async () => {
  try {
    const body = JSON.stringify({ corrections: Object.fromEntries(corrections) });
    const answer = await ask("review/list", { method: "POST", body, headers: { "Content-Type": "application/json" } });
    const name = /filename="([^"]+)"/.exec(answer.headers.get("Content-Disposition") ?? "")?.[1] ?? "list.txt";
    const url = URL.createObjectURL(await answer.blob());
    el("a", { href: url, download: name }).click();
    setTimeout(() => URL.revokeObjectURL(url), 10000);
    $("next").textContent = t("downloaded", { name });
    $("next").hidden = false;
  } catch (error) {
    $("problem").textContent = error.message;
    $("problem").hidden = false;
  }
});

function showFilters() {
  if (!info) return;
  for (const name of ["label", "predicted"]) {
    select($(name), [["", t("any")], ...info.labels.map((label) => [label, labelName(label)])], $(name).value);
  }
}

onLanguage(() => { showFilters(); show(); });
info = await askJson("info").catch((error) => { $("problem").textContent = error.message; $("problem").hidden = false; return null; });
startLanguage();
if (info) {
  if (info.key) askForKey(() => fetchRows());
  if (info.review) await fetchRows();
  else { $("problem").textContent = t("review_none"); $("problem").hidden = false; $("filters").hidden = true; }
}
document.documentElement.dataset.ready = "yes";
