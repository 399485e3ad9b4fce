// The map: every post of the cache as a point, like posts beside each other.

import { $, ask, askForKey, askJson, chip, el, labelName, linkPages, onLanguage, percent, select, startLanguage, t } from "./common.js";
import { makeScatter } from "./scatter.js";

const PART = 50;
const NONE = 255; // no label, no prediction
const SPLITS = ["train", "validation", "test"];
const PALE = "#9aa3ae";
const SPLIT_COLOURS = ["#0072b2", "#d55e00", "#009e73"];
const STEPS = { // of confidence and agreement, from low to high, on light and on dark paper
  light: ["#440154", "#3b528b", "#21918c", "#5ec962", "#d8c21c"], dark: ["#2c728e", "#1f9e89", "#4ac16d", "#a0da39", "#fde725"],
};
const dark = matchMedia("(prefers-color-scheme: dark)");
const steps = () => STEPS[dark.matches ? "dark" : "light"];
let info = null;
let points = null;
let map = null;
let chosen = null; // the places in the selection; null: all
let opened = null;
let from = null; // the place in the list where a post was opened
let asked = 0;

function unpack(text, Kind) {
  const raw = atob(text);
  const bytes = new Uint8Array(raw.length);
  for (let i = 0; i < raw.length; i += 1) bytes[i] = raw.charCodeAt(i);
  return new Kind(bytes.buffer);
}
const step = (share) => steps()[Math.min(4, Math.floor(5 * share))];

function complain(message) {
  $("problem").textContent = message;
  $("problem").hidden = !message;
}

// --- colours

const named = (i) => (i === NONE ? null : points.labels[i]);
const ofLabel = (i) => (i === NONE ? PALE : info.colours[points.labels[i]]);
const labelsOf = () => [...points.labels.map((label) => [labelName(label), info.colours[label]]), [t("map_no_label"), PALE]];
const stepsOf = (low, high) => steps().map((colour, i) => [i === 0 ? low : i === 4 ? high : "", colour]);
const MODES = {
  label: { colour: (i) => ofLabel(points.label[i]), legend: labelsOf },
  predicted: { colour: (i) => ofLabel(points.predicted[i]), legend: labelsOf },
  confidence: { colour: (i) => (points.predicted[i] === NONE ? PALE : step(points.confidence[i] / 255)), legend: () => stepsOf("0%", "100%") },
  split: { colour: (i) => SPLIT_COLOURS[points.split[i]], legend: () => SPLITS.map((name, i) => [t(`map_${name}`), SPLIT_COLOURS[i]]) },
  agreement: {
    colour: (i) => (points.predicted[i] === NONE ? PALE : step(points.agreeing[i] / Math.max(1, points.heads))),
    legend: () => stepsOf(t("map_no_head"), t("map_all_heads")),
  },
};

function paint() {
  const mode = MODES[$("colour").value];
  map.colour(mode.colour, getComputedStyle(document.documentElement).getPropertyValue("--card").trim());
  $("legend").replaceChildren(...mode.legend().map(([name, colour]) => {
    const swatch = el("i");
    swatch.style.background = colour;
    return el("li", {}, swatch, name);
  }));
}

// --- the list, for the keyboard and for screen readers too

function showList() {
  const all = chosen ?? points.ids.map((_, i) => i);
  $("list-title").textContent = chosen ? t("map_chosen", { n: all.length }) : t("map_every", { n: all.length });
  $("clear").hidden = $("to-gallery").hidden = !chosen;
  if (chosen) $("to-gallery").href = `review#${new URLSearchParams({ ids: JSON.stringify(chosen.map((i) => points.ids[i])) })}`;
  $("list").replaceChildren();
  $("more").onclick = () => {
    const at = $("list").children.length;
    $("list").append(...all.slice(at, at + PART).map((i) => {
      const label = named(points.label[i]) ?? named(points.predicted[i]);
      return el("li", {}, el("button", { type: "button", onclick: (event) => { from = event.target; open(i, true); } }, points.ids[i]), label ? chip(label, info.colours) : "");
    }));
    $("more").hidden = $("list").children.length >= all.length;
  };
  $("more").onclick();
}

function choose(found) {
  chosen = found && found.length ? found : null;
  map.select(chosen);
  showList();
}

// --- one post

/** Show a post. reading: go to it, for whoever asked did not do so on the map, beside it. */
async function open(i, reading = false) {
  const mine = (asked += 1);
  if (i < 0) return;
  map.mark(i);
  $("post").replaceChildren(el("p", { className: "busy" }, t("map_opening")));
  try {
    const found = await askJson(`map/posts/${i}`);
    if (mine !== asked) return;
    opened = found;
    showPost();
    if (reading) $("post").querySelector("h2").focus();
  } catch (error) {
    if (mine === asked) $("post").replaceChildren(el("p", { className: "alert" }, error.message));
  }
}

function showPost() {
  if (!opened) return;
  const { row, text, near, picture, review } = opened;
  const facts = el("dl", { className: "facts" });
  const add = (name, value) => facts.append(el("dt", {}, name), el("dd", {}, value));
  const [label, predicted] = [named(points.label[row]), named(points.predicted[row])];
  if (label) add(t("row_label"), chip(label, info.colours));
  if (predicted) {
    add(t("row_predicted"), chip(predicted, info.colours));
    add(t("f_confidence_of"), percent(points.confidence[row] / 255));
  }
  add(t("map_split"), t(`map_${SPLITS[points.split[row]]}`));
  const thumb = el("div", { className: "thumb" }, picture ? "" : t("no_picture"));
  if (picture) {
    ask(`map/pictures/${row}`).then((answer) => answer.blob())
      .then((blob) => thumb.replaceChildren(el("img", { alt: "", src: URL.createObjectURL(blob) })))
      .catch(() => { thumb.textContent = t("no_picture"); });
  }
  const similar = near.map((one) => el("li", {}, el("button", { type: "button", onclick: () => open(one.row, true) }, one.text || points.ids[one.row]),
    ...[named(points.label[one.row])].filter(Boolean).map((name) => chip(name, info.colours)), el("span", { className: "hint" }, ` ${one.similarity.toFixed(2)}`)));
  $("post").replaceChildren(el("h2", { tabIndex: -1 }, points.ids[row]), thumb, el("p", { className: "text", dir: "auto" }, text), facts,
    review === null ? "" : el("p", {}, el("a", { href: `./?row=${review}` }, t("why"))),
    el("h3", {}, t("map_near")), el("ol", { className: "map-list" }, ...similar));
}

// --- the start

function words() {
  if (!points) return;
  const method = points.method === "UMAP" ? t("map_umap") : t("map_pca");
  $("about").textContent = t("map_about", { posts: t("posts", { n: points.ids.length }), method, encoder: info.encoder });
  $("map").setAttribute("aria-label", $("about").textContent);
  select($("colour"), Object.keys(MODES).map((name) => [name, t(`map_by_${name}`)]), $("colour").value || "label");
  paint();
  showList();
  showPost();
}

async function start() {
  try {
    const given = await askJson("map/points");
    points = { ...given };
    for (const name of ["x", "y"]) points[name] = unpack(given[name], Float32Array);
    for (const name of ["label", "predicted", "confidence", "split", "agreeing"]) points[name] = unpack(given[name], Uint8Array);
  } catch (error) { return complain(error.status === 404 ? t("map_absent") : error.message); }
  complain("");
  $("all").hidden = false;
  map = makeScatter($("map"), points, { pick: open, lasso: choose });
  words();
  map.draw();
  window.mmsentMapDrawn = performance.now(); // for a test
}

function mode(name) {
  map.mode(name);
  for (const id of ["pan", "lasso"]) $(id).setAttribute("aria-pressed", String(id === name));
}

for (const id of ["pan", "lasso"]) $(id).addEventListener("click", () => mode(id));
$("in").addEventListener("click", () => map.zoom(1.4));
$("out").addEventListener("click", () => map.zoom(1 / 1.4));
$("fit").addEventListener("click", () => map.fit());
$("clear").addEventListener("click", () => choose(null));
$("colour").addEventListener("change", paint);
$("post").addEventListener("keydown", (event) => { if (event.key === "Escape") from?.focus(); });
dark.addEventListener("change", () => map && paint());
onLanguage(words);
startLanguage();
info = await askJson("info").catch((error) => { complain(error.message); return null; });
if (info) {
  linkPages(info);
  if (info.key) askForKey(start);
  await start();
}
document.documentElement.dataset.ready = "yes";
