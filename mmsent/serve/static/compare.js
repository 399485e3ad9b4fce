// The page that compares two of the served heads. The address names them: compare?a=RUN&b=RUN.

import { cardOf } from "./cards.js";
import { $, askForKey, askJson, chip, el, fusionName, linkPages, onLanguage, percent, pictures, select, signed, startLanguage, t } from "./common.js";

const PART = 24;
let info = null;
let found = null;
let asked = 0;
const picture = pictures();

function complain(message) {
  $("problem").textContent = message;
  $("problem").hidden = !message;
}

const nameOf = (run) => {
  const head = info.heads.find((one) => one.run === run);
  const alike = info.heads.filter((one) => one.fusion === head?.fusion).length > 1;
  return head && !alike ? fusionName(head.fusion) : run;
};
const plain = (value) => (value === null || value === "" ? "–" : Array.isArray(value) ? value.join(", ") || "–" : String(value));

function table(header, rows) {
  const cell = (name, text) => el(name, name === "th" ? { scope: "col" } : {}, text);
  return el("div", { className: "scroll", tabIndex: 0 }, el("table", {},
    el("thead", {}, el("tr", {}, ...header.map((text) => cell("th", text)))),
    el("tbody", {}, ...rows.map((row) => el("tr", {}, ...row.map((text) => cell("td", text)))))));
}

const card = (one) => cardOf({ ...one, predicted: null }, { info, picture, why: (row) => row.row !== null && `./?row=${row.row}` },
  { more: [["A", chip(one.a, info.colours)], ["B", chip(one.b, info.colours)]] });

function side(cases, title) {
  if (!cases.length) return "";
  const list = el("ol", { className: "rows" });
  const more = el("button", { type: "button", className: "plain more" }, t("more"));
  const add = () => {
    const at = list.children.length;
    list.append(...cases.slice(at, at + PART).map(card));
    more.hidden = list.children.length >= cases.length;
  };
  more.addEventListener("click", add);
  add();
  const all = el("a", { href: `review#${new URLSearchParams({ ids: JSON.stringify(cases.map((one) => one.id)) })}` }, t("in_gallery"));
  return el("section", { className: "card wide" }, el("h2", {}, `${title} (${cases.length})`), all, list, more);
}

function show() {
  $("said").textContent = "";
  if (!found) return $("found").replaceChildren();
  const { gaps, settings, only_a, only_b, p_value: p, rows, others } = found;
  const [a, b] = [nameOf(found.a), nameOf(found.b)];
  const posts = (some) => t("posts", { n: some.length });
  const names = { accuracy: t("accuracy"), f1_weighted: t("f1_weighted"), f1_macro: t("f1_macro") };
  const scores = gaps.map((gap) => [names[gap.measure], percent(gap.a, 1), percent(gap.b, 1),
    t("gap", { d: signed(100 * gap.difference), low: signed(100 * gap.low), high: signed(100 * gap.high) })]);
  const chance = t(p < 0.05 ? "beyond_chance" : "within_chance", { p: p < 1e-4 ? "< 0.0001" : p.toFixed(4) });
  const summary = `${t("only_counts", { a: posts(only_a), b: posts(only_b) })} ${chance}`;
  $("said").textContent = summary;
  $("found").replaceChildren(
    el("section", { className: "card wide" }, el("h2", {}, t("scores")),
      el("p", {}, summary),
      table([t("score"), `A: ${a}`, `B: ${b}`, "B − A"], scores),
      el("p", { className: "hint" }, t("compared_on", { n: rows }) + (others ? ` ${t("left_others", { n: others })}` : ""))),
    el("section", { className: "card wide" }, el("h2", {}, t("settings_differ")),
      settings.length ? table([t("setting"), "A", "B"], settings.map((one) => [one.name, plain(one.a), plain(one.b)]))
        : el("p", {}, t("no_setting"))),
    side(only_a, t("only_right", { head: `A: ${a}` })), side(only_b, t("only_right", { head: `B: ${b}` })));
}

async function compare() {
  const mine = (asked += 1);
  const query = new URLSearchParams({ a: $("a").value, b: $("b").value });
  history.replaceState(null, "", `?${query}`);
  complain("");
  try {
    const answer = await askJson(`compare/runs?${query}`);
    if (mine !== asked) return;
    found = answer;
  } catch (error) {
    if (mine !== asked) return;
    found = null;
    complain(error.status === 404 ? t("compare_none") : error.message);
  }
  show();
}

function showChoice() {
  if (!info) return;
  const given = new URLSearchParams(location.search);
  const runs = info.heads.map((head) => head.run);
  const chosen = (id, otherwise) => $(id).value || (runs.includes(given.get(id)) ? given.get(id) : otherwise);
  const options = runs.map((run) => [run, nameOf(run)]);
  select($("a"), options, chosen("a", runs[0]));
  select($("b"), options, chosen("b", runs[1]));
}

for (const id of ["a", "b"]) $(id).addEventListener("change", compare);
$("choice").addEventListener("submit", (event) => event.preventDefault());
onLanguage(() => { showChoice(); show(); });
startLanguage();
info = await askJson("info").catch((error) => { complain(error.message); return null; });
if (info) {
  linkPages(info);
  showChoice();
  if (info.key) askForKey(compare);
  $("choice").hidden = info.heads.length < 2;
  if (info.heads.length < 2) complain(t("compare_one"));
  else await compare();
}
document.documentElement.dataset.ready = "yes";
