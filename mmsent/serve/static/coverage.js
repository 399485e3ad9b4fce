// How accurate the surest posts are, and where a post stands among them.

import { el, percent, t } from "./common.js";

const [WIDTH, HEIGHT, LEFT, BOTTOM] = [320, 150, 40, 24];
const svg = (name, given, ...children) => {
  const made = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(given)) made.setAttribute(key, value);
  made.append(...children);
  return made;
};

/** The share of posts that are at least this sure, and how many of them are right: from the part that the post is in. */
export function partOf(curve, confidence) {
  return [...curve].reverse().find((point) => confidence >= point.least) ?? null;
}

/** The curve, with the part that a confidence is in marked. curve: from the surest tenth (last) to all posts (first). */
export function coverageCurve(curve, confidence) {
  const lowest = Math.floor(10 * Math.min(...curve.map((point) => point.accuracy)) - 1e-9) / 10;
  const x = (share) => LEFT + share * (WIDTH - LEFT - 8);
  const y = (accuracy) => HEIGHT - BOTTOM - ((accuracy - lowest) / (1 - lowest)) * (HEIGHT - BOTTOM - 10);
  const part = partOf(curve, confidence);
  const line = curve.map((point, i) => `${i ? "L" : "M"}${x(point.coverage)} ${y(point.accuracy)}`).join("");
  const label = (at, text, more = {}) => svg("text", { ...at, class: "axis", ...more }, text);
  const drawn = svg("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, class: "coverage", role: "img", "aria-label": t("coverage_title") },
    ...[lowest, 1].map((value) => label({ x: LEFT - 6, y: y(value) + 4, "text-anchor": "end" }, percent(value))),
    svg("path", { d: `M${LEFT} ${y(1)}V${HEIGHT - BOTTOM}H${WIDTH - 8}`, class: "frame" }),
    ...[0.1, 0.5, 1].map((share) => label({ x: x(share), y: HEIGHT - 6, "text-anchor": share < 1 ? "middle" : "end" }, percent(share))),
    svg("path", { d: line, class: "line" }),
    ...(part ? [svg("circle", { cx: x(part.coverage), cy: y(part.accuracy), r: 5 })] : []));
  const said = part
    ? t("coverage_here", { share: percent(part.coverage), right: percent(part.accuracy, 1) }) : t("coverage_below");
  return el("details", { className: "coverage-of" }, el("summary", {}, t("coverage_title")), drawn,
    el("p", { className: "hint" }, t("coverage_axes")), el("p", { className: "hint" }, said));
}
