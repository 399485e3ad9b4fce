// The part of a card on which somebody says what the post's label is.

import { darkened, el, labelName, t } from "./common.js";

/** Buttons of the labels; a note where the label cannot be corrected. */
export function choicesOf(row, source, decisions) {
  if (!row.correctable) return el("p", { className: "hint" }, t(source.posts ? "not_here" : "no_posts"));
  const chosen = (decision) => (event) => { decision(); if (event.detail) row.card.focus({ preventScroll: true }); };
  const buttons = source.info.labels.map((label, i) => {
    const key = i < 9 ? el("kbd", { "aria-hidden": "true" }, String(i + 1)) : null;
    const button = el("button", { type: "button", onclick: chosen(() => decisions.toggle(row, label)) }, key, labelName(label));
    button.dataset.label = label;
    return button;
  });
  if ((row.label ?? row.predicted) !== null) {
    const words = t(row.label === null ? "as_predicted" : "keep");
    buttons.push(el("button", { type: "button", className: "keep", onclick: chosen(() => decisions.confirm(row)) }, words));
  }
  return el("fieldset", { className: "choose" }, el("legend", {}, t("correct")), el("div", {}, ...buttons), el("p", { className: "others" }));
}

/** Show on a post's card what was decided. */
export function markCard(row, colours, decisions) {
  const label = decisions.labelOf(row);
  row.card.classList.toggle("changed", decisions.corrected(row));
  row.card.classList.toggle("done", decisions.has(row));
  for (const button of row.card.querySelectorAll("[data-label]")) {
    const on = button.dataset.label === label;
    button.setAttribute("aria-pressed", String(on));
    button.style.background = on ? darkened(colours[label]) : "";
  }
  row.card.querySelector(".keep")?.setAttribute("aria-pressed", String(decisions.has(row) && !decisions.corrected(row)));
  const others = row.card.querySelector(".others");
  if (others) others.textContent = Object.entries(decisions.conflict(row) ?? {}).map(([name, said]) => `${name}: ${labelName(said)}`).join(", ");
}
