// The card of a post, the same on every page: its image, its text, and what is said of it.

import { agreement, chip, closing, decisionOf, el, fusionName, labelName, over, percent, t } from "./common.js";

const headOf = (run, info) => {
  const head = info.heads.find((one) => one.run === run);
  return head ? fusionName(head.fusion) : run;
};

/** source: {info: {labels, colours, heads}, picture(row, whole), why(row)}; more: other facts, [name, what it is] each; below: what
 * else stands on the card; named: whether the id does. */
export function cardOf(row, source, { more = [], below = [], named = true } = {}) {
  const thumb = el("button", { type: "button", className: "thumb", onclick: () => enlarge(row, source, card) }, row.picture ? "" : t("no_picture"));
  thumb.disabled = !row.picture;
  if (row.picture) {
    thumb.setAttribute("aria-label", t("picture_of", { id: row.id }));
    showPicture(thumb, row, source);
  }
  const why = source.why?.(row);
  const card = el("li", { className: "row", tabIndex: -1, "aria-label": row.id }, thumb,
    el("p", { className: "id" }, row.marked ? `${row.id} · ${t("marked")}` : named ? row.id : "",
      ...(why ? [" ", el("a", { className: "why", href: why }, t("why"))] : [])),
    el("p", { className: "text", dir: "auto", tabIndex: 0 }, row.text ?? ""), factsOf(row, source.info, more),
    stackOf(row, source.info), ...below);
  card.dataset.id = row.id;
  return card;
}

function factsOf(row, info, more) {
  const facts = el("dl", { className: "facts" });
  const fact = (name, ...values) => facts.append(el("dt", {}, name), el("dd", {}, ...values));
  if (row.label !== null) fact(t("row_label"), chip(row.label, info.colours));
  if (row.predicted !== null) {
    const how = row.decision ? decisionOf(row.predicted, row.heads, row.probabilities) : percent(row.confidence, 1);
    fact(t("row_predicted"), chip(row.predicted, info.colours), ` ${how}`);
  }
  const heads = Object.entries(row.heads ?? {});
  if (heads.length > 1) {
    const each = heads.map(([run, label]) => `${headOf(run, info)}: ${labelName(label)}`).join(", ");
    const words = agreement(heads.length - heads.filter(([, label]) => label !== row.predicted).length, heads.length, row.predicted);
    fact(t("row_heads"), el("span", { title: each }, words, el("span", { className: "unseen" }, ` (${each})`)));
  }
  for (const [name, value] of more) fact(name, value);
  return facts;
}

function stackOf(row, { labels, colours }) {
  const shares = labels.filter((name) => name in (row.probabilities ?? {}));
  if (!shares.length) return null;
  const stack = el("div", { className: "stack", role: "img" });
  stack.setAttribute("aria-label", shares.map((name) => `${labelName(name)} ${percent(row.probabilities[name])}`).join(", "));
  for (const name of shares) {
    const part = el("i", { title: `${labelName(name)} ${percent(row.probabilities[name], 1)}` });
    part.style.width = percent(row.probabilities[name], 2);
    part.style.background = colours[name];
    stack.append(part);
  }
  return stack;
}

/** Fetch a post's image into a place. */
export async function showPicture(place, row, source, whole = false) {
  try {
    const image = el("img", { alt: t("picture_of", { id: row.id }), src: await source.picture(row, whole) });
    await image.decode();
    place.replaceChildren(image);
  } catch {
    if (place.childElementCount === 0) place.textContent = t("no_picture");
  }
}

/** Show a post's image large, then go back to its card. */
export async function enlarge(row, source, card) {
  const place = el("div", { className: "whole" });
  showPicture(place, row, source, true);
  await over("zoom", t("picture_of", { id: row.id }), place, el("p", { dir: "auto" }, row.text ?? ""), closing("close"));
  card.focus();
}
