// The map: every post as a point, like posts beside each other; a lasso, one post at a time, and all of it as a list.

import { cardOf } from "./cards.js";
import { $, chip, el, labelName, onLanguage, said, select, t } from "./common.js";
import { makeScatter } from "./scatter.js";

const LISTED = 50;
const UNKNOWN = 255; // no label, no prediction
const SPLITS = ["train", "validation", "test"];
const PALE = "#9aa3ae";
const SPLIT_COLOURS = ["#0072b2", "#d55e00", "#009e73"];
const STEPS = { // of confidence and agreement, from low to high, on light and on dark paper
  light: ["#440154", "#3b528b", "#21918c", "#5ec962", "#d8c21c"], dark: ["#2c728e", "#1f9e89", "#4ac16d", "#a0da39", "#fde725"],
};
const dark = matchMedia("(prefers-color-scheme: dark)");
const stepsNow = () => STEPS[dark.matches ? "dark" : "light"];

function unpacked(given) {
  const points = { ...given };
  const bytes = (text) => Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
  for (const name of ["x", "y"]) points[name] = new Float32Array(bytes(given[name]).buffer);
  for (const name of ["label", "predicted", "confidence", "split", "agreeing"]) points[name] = bytes(given[name]);
  return points;
}

/** The colours of the points by each of their properties, and what a colour means. */
function modesOf(points, colours) {
  const ofLabel = (i) => (i === UNKNOWN ? PALE : colours[points.labels[i]]);
  const ofShare = (i, share) => (points.predicted[i] === UNKNOWN ? PALE : stepsNow()[Math.min(4, Math.floor(5 * share))]);
  const labels = () => [...points.labels.map((label) => [labelName(label), colours[label]]), [t("map_no_label"), PALE]];
  const steps = (low, high) => stepsNow().map((colour, i) => [i === 0 ? low : i === 4 ? high : "", colour]);
  return {
    label: { colour: (i) => ofLabel(points.label[i]), legend: labels },
    predicted: { colour: (i) => ofLabel(points.predicted[i]), legend: labels },
    confidence: { colour: (i) => ofShare(i, points.confidence[i] / 255), legend: () => steps("0%", "100%") },
    split: { colour: (i) => SPLIT_COLOURS[points.split[i]], legend: () => SPLITS.map((name, i) => [t(`map_${name}`), SPLIT_COLOURS[i]]) },
    agreement: {
      colour: (i) => ofShare(i, points.agreeing[i] / Math.max(1, points.heads)),
      legend: () => steps(t("map_no_head"), t("map_all_heads")),
    },
  };
}

function buildMap(level) {
  const button = (id, key, act, more = {}) => said("button", key, { id, type: "button", className: "plain", onclick: act, ...more });
  const sign = (id, key, text) => {
    const made = el("button", { id, type: "button", className: "plain", "aria-label": t(key) }, text);
    made.dataset.tLabel = key;
    return made;
  };
  const pointer = el("div", { className: "actions", role: "group", "aria-label": t("map_pointer") },
    button("pan", "map_pan", null, { "aria-pressed": "true" }), button("lasso", "map_lasso", null, { "aria-pressed": "false" }),
    sign("in", "map_in", "+"), sign("out", "map_out", "−"), button("fit", "map_fit"));
  pointer.dataset.tLabel = "map_pointer";
  const post = el("aside", { className: "card", id: "post", "aria-label": t("post") }, said("p", "map_none", { className: "empty" }));
  post.dataset.tLabel = "post";
  $("map-part").append(
    el("div", { className: "map-tools" },
      el("div", {}, said("label", "map_colour", { for: "colour" }), el("select", { id: "colour" })), pointer,
      el("div", {}, said("label", "map_order", { for: "list-order" }), el("select", { id: "list-order" }))),
    el("div", { className: "map" },
      el("canvas", { id: "map", tabIndex: 0, role: "img", "aria-describedby": "map-keys" }),
      post),
    el("ul", { className: "map-legend", id: "legend" }),
    said("p", "map_keys", { className: "hint", id: "map-keys" }),
    el("section", { className: "card wide", "aria-labelledby": "list-title" },
      el(`h${level}`, { id: "list-title", tabIndex: -1 }),
      el("p", { className: "actions" }, said("a", "in_gallery", { id: "to-gallery", hidden: true }),
        button("clear", "map_clear", null, { hidden: true })),
      el("ol", { className: "map-list", id: "list" }),
      button("list-more", "more", null, { className: "plain more", hidden: true })));
}

/** Start the map in #map-part. given: the points as map/points says; source: {info: {labels, colours, heads, encoder}, post(i): what
 * is known of a post beside its point, {text, picture, row, near}; picture(row, whole) and why(row) as for cards; chosen(ids):
 * told of the selection, null for all, and says where its posts are; useful(): ids in the order to label them, where there is
 * such an order; level: of the headings}. */
export function startMap(given, source) {
  const points = unpacked(given);
  const { info, level = 2 } = source;
  const modes = modesOf(points, info.colours);
  const all = points.ids.map((_, i) => i);
  let chosen = null; // the places in the selection; null: all
  let opened = null; // [place, what is known of its post]
  let from = null; // the place in the list where a post was opened
  let asked = 0;
  buildMap(level);
  const map = makeScatter($("map"), points, { pick: open, lasso: choose });
  const labelAt = (i) => points.labels[points.label[i]] ?? null;
  const predictedAt = (i) => points.labels[points.predicted[i]] ?? null;

  function paint() {
    const mode = modes[$("colour").value];
    map.colour(mode.colour, getComputedStyle(document.documentElement).getPropertyValue("--card").trim());
    $("legend").replaceChildren(...mode.legend().map(([name, colour]) => {
      const swatch = el("i");
      swatch.style.background = colour;
      return el("li", {}, swatch, name);
    }));
  }

  // --- the list, for the keyboard and for screen readers too

  const orders = {
    listed: () => () => 0,
    unsure: () => (i) => (points.predicted[i] === UNKNOWN ? 256 : points.confidence[i]),
    async useful() {
      const place = new Map((await source.useful()).map((id, k) => [id, k]));
      return (i) => place.get(points.ids[i]) ?? Infinity;
    },
  };
  async function showList() {
    const shown = chosen ?? all;
    $("list-title").textContent = t(chosen ? "map_chosen" : "map_every", { n: shown.length });
    $("clear").hidden = $("to-gallery").hidden = !chosen;
    const by = await orders[$("list-order").value]();
    const sorted = [...shown].sort((a, b) => by(a) - by(b) || a - b);
    const entry = (i) => {
      const label = labelAt(i) ?? predictedAt(i);
      const go = (event) => { from = event.target; open(i, true); };
      return el("li", {}, el("button", { type: "button", onclick: go }, points.ids[i]), label ? chip(label, info.colours) : "");
    };
    $("list").replaceChildren();
    $("list-more").onclick = () => {
      const at = $("list").children.length;
      $("list").append(...sorted.slice(at, at + LISTED).map(entry));
      $("list-more").hidden = $("list").children.length >= sorted.length;
    };
    $("list-more").onclick();
  }

  function choose(found) {
    chosen = found && found.length ? found : null;
    map.select(chosen);
    $("to-gallery").href = source.chosen(chosen && chosen.map((i) => points.ids[i])) ?? "";
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
      const found = await source.post(i);
      if (mine !== asked) return;
      opened = [i, found];
      showPost();
      if (reading) $("post").querySelector("h2, h3").focus();
    } catch (error) {
      if (mine === asked) $("post").replaceChildren(el("p", { className: "alert" }, error.message));
    }
  }

  function showPost() {
    if (!opened) return;
    const [i, post] = opened;
    const row = { id: points.ids[i], label: labelAt(i), predicted: predictedAt(i), confidence: points.confidence[i] / 255, ...post };
    const similar = (post.near ?? []).map((one) => el("li", {},
      el("button", { type: "button", onclick: () => open(one.row, true) }, one.text || points.ids[one.row]),
      labelAt(one.row) ? chip(labelAt(one.row), info.colours) : "", el("span", { className: "hint" }, ` ${one.similarity.toFixed(2)}`)));
    const below = similar.length ? [el(`h${level + 1}`, {}, t("map_near")), el("ol", { className: "map-list" }, ...similar)] : [];
    const more = [[t("map_split"), t(`map_${SPLITS[points.split[i]]}`)]];
    $("post").replaceChildren(el(`h${level}`, { tabIndex: -1 }, row.id), el("ul", { className: "rows" }, cardOf(row, source, { more, below, named: false })));
  }

  // --- the start

  function words() {
    const method = points.method === "UMAP" ? t("map_umap") : t("map_pca");
    $("about").textContent = t("map_about", { posts: t("posts", { n: points.ids.length }), method, encoder: info.encoder });
    $("map").setAttribute("aria-label", $("about").textContent);
    select($("colour"), Object.keys(modes).map((name) => [name, t(`map_by_${name}`)]), $("colour").value || "label");
    const offered = ["listed", "unsure", ...(source.useful ? ["useful"] : [])];
    select($("list-order"), offered.map((name) => [name, t(`order_${name}`)]), $("list-order").value || "listed");
    paint();
    showList();
    showPost();
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
  $("list-order").addEventListener("change", showList);
  $("post").addEventListener("keydown", (event) => { if (event.key === "Escape") from?.focus(); });
  dark.addEventListener("change", paint);
  onLanguage(words);
  words();
  map.draw();
}
