// The page to try posts on.

import {
  $, agreement, ask, askForKey, askJson, chip, decisionOf, el, fusionName, labelName, linkPages, onLanguage, percent, select, signed,
  startLanguage, t, track,
} from "./common.js";
import { coverageCurve } from "./coverage.js";
import { drawMap, placeOf } from "./heat.js";

let info = null;
let picture = null; // a File or Blob
let posted = null; // the post behind the shown answer: {picture, text}
let answer = null;
let explanation = null;
let shownRow = false; // whether what stands in the form is an example, and nobody's own
let asked = 0; // so that an answer to an older question is left

// --- the post

function showPicture(blob) {
  const preview = $("preview");
  if (preview.src) URL.revokeObjectURL(preview.src);
  picture = blob;
  preview.hidden = $("remove").hidden = !blob;
  $("drop-hint").hidden = Boolean(blob);
  if (blob) preview.src = URL.createObjectURL(blob);
  else preview.removeAttribute("src");
}

function takeFile(file) {
  if (file && !file.type.startsWith("image/")) return complain("problem", t("not_picture"));
  complain("problem", "");
  if (!file) return;
  if (shownRow) $("text").value = "";
  shownRow = false;
  showPicture(file);
}

function complain(id, message) {
  $(id).textContent = message;
  $(id).hidden = !message;
}

function countText() {
  if (!info) return;
  const n = [...$("text").value].length;
  $("text-count").textContent = n ? t("text_count", { n, most: info.max_text }) : "";
}

$("file").addEventListener("change", (event) => { takeFile(event.target.files[0]); event.target.value = ""; });
$("remove").addEventListener("click", () => { showPicture(null); $("file").focus(); });
$("text").addEventListener("input", () => { shownRow = false; countText(); });
$("text").addEventListener("focus", () => { if (shownRow) $("text").select(); });
$("text").addEventListener("keydown", (event) => {
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) { event.preventDefault(); $("form").requestSubmit(); }
});
let entered = 0;
document.addEventListener("dragenter", () => { entered += 1; $("drop").classList.add("over"); });
document.addEventListener("dragleave", () => { entered -= 1; if (entered <= 0) $("drop").classList.remove("over"); });
document.addEventListener("dragover", (event) => event.preventDefault());
document.addEventListener("drop", (event) => {
  event.preventDefault();
  entered = 0;
  $("drop").classList.remove("over");
  takeFile(event.dataTransfer.files[0]);
});
document.addEventListener("paste", (event) => {
  const file = [...event.clipboardData.files].find((one) => one.type.startsWith("image/"));
  if (file) { event.preventDefault(); takeFile(file); }
});
$("clear").addEventListener("click", () => {
  showPicture(null);
  $("text").value = "";
  countText();
  complain("problem", "");
  asked += 1;
  answer = explanation = posted = null;
  $("why-now").hidden = true;
  showAnswer();
  $("explanation").hidden = true;
  $("file").focus();
});
$("form").addEventListener("submit", (event) => { event.preventDefault(); label(); });

function formOf(post) {
  const form = new FormData();
  if (post.picture) form.append("image", post.picture, "picture");
  if (post.text) form.append("text", post.text);
  return form;
}

/** Which posts the heads can label: those with an image, with a text, with one of them alone. */
function served() {
  const reads = (half) => info.heads.some((head) => head.halves.includes(half));
  const alone = (half) => info.heads.some((head) => head.halves.includes(half) && !head.needs_both);
  return { picture: reads("image"), text: reads("text"), pictureAlone: alone("image"), textAlone: alone("text") };
}

/** Label the post. asking: somebody asked for it, so the answer is explained and brought into view. */
async function label(asking = true) {
  const post = { picture, text: $("text").value };
  const { pictureAlone, textAlone } = served();
  if (!(post.picture ? post.text || pictureAlone : post.text && textAlone)) {
    return complain("problem", t(pictureAlone && textAlone ? "give_one" : pictureAlone ? "give_picture" : textAlone ? "give_text" : "give_both"));
  }
  if ([...post.text].length > info.max_text || (post.picture?.size ?? 0) > info.max_body) return complain("problem", t("problem_413"));
  complain("problem", "");
  const mine = (asked += 1);
  $("submit").disabled = true;
  $("answer").replaceChildren(el("p", { className: "empty busy" }, t("labelling")));
  $("explanation").hidden = true;
  answer = explanation = null;
  try {
    const waiting = (n) => complain("problem", t("again", { n }));
    const found = await askJson("predict", { method: "POST", body: formOf(post) }, waiting);
    if (mine !== asked) return;
    complain("problem", "");
    answer = found;
    posted = post;
    $("target").value = "";
    showInfo();
    showAnswer();
    $("why-now").hidden = asking;
    if (!asking) return;
    if (matchMedia("(max-width: 860px)").matches) $("result").scrollIntoView({ block: "start" });
    explain();
  } catch (error) {
    if (mine !== asked) return;
    showAnswer();
    complain("problem", error.message);
  } finally {
    $("submit").disabled = false;
  }
}

// --- the answer

/** A bar a label; below: under its name and number, where there is little room. */
function bars(probabilities, below = false) {
  const list = el("dl", { className: "bars" });
  for (const name of info.labels) {
    const share = probabilities[name] ?? 0;
    const [bar, value] = [el("dd", {}, track(share, info.colours[name])), el("dd", { className: "value" }, percent(share, 1))];
    list.append(el("dt", {}, labelName(name)), ...(below ? [value, bar] : [bar, value]));
  }
  return list;
}

function shareBar(share) {
  const [left, right] = [el("i", { className: "of-picture" }), el("i", { className: "of-text" })];
  left.style.width = percent(share, 2);
  right.style.width = percent(1 - share, 2);
  return [
    el("div", { className: "share", "aria-hidden": "true" }, left, right),
    el("div", { className: "legend" },
      el("span", {}, t("picture_share", { p: percent(share) })), el("span", {}, t("text_share", { p: percent(1 - share) }))),
  ];
}

/** A bar from the middle of its track: to the right what supports the label, to the left what opposes it. */
function sided(share) {
  const bar = el("i", { className: share < 0 ? "against" : "for" });
  bar.style.width = percent(Math.abs(share) / 2, 2);
  bar.style.marginLeft = percent(share < 0 ? 0.5 + share / 2 : 0.5, 2);
  return el("div", { className: "track sided", "aria-hidden": "true" }, bar);
}

function headCard(head) {
  const card = el("article", { className: "head" },
    el("header", {}, el("h4", { title: head.run }, fusionName(head.fusion)), head.label ? chip(head.label, info.colours) : null));
  if (!head.label) return card.append(el("p", { className: "hint" }, t("cannot"))), card;
  card.append(bars(head.probabilities, true));
  if (head.weights) {
    const title = t(head.fusion === "weighted" ? "fusion_weights" : "attention");
    card.append(el("div", { className: "shares" }, title, ...shareBar(head.weights.image)));
  }
  return card;
}

/** The label that won the vote, also where the service told something else in its place. */
const won = (found) => found.voted ?? found.label;
const toldName = (label) => (label === "uncertain" && info.abstain ? t("uncertain") : label.split("|").map(labelName).join(" / "));

function abstained() {
  if (!answer.voted) return null;
  const { level, bounds, rows } = info.abstain;
  const share = percent(level, level < 0.1 && level * 100 % 1 ? 1 : 0);
  const sure = percent(answer.probabilities[answer.voted], 1);
  const more = answer.label === "uncertain" ? `${t("uncertain_vote", { label: labelName(answer.voted), sure })} ` : "";
  return el("p", { className: "hint", id: "abstained" }, more + t(bounds.length ? "abstain_sets" : "abstain_promise", { share, rows }));
}

function showAnswer() {
  $("said").textContent = "";
  if (!answer) return $("answer").replaceChildren(el("p", { className: "empty" }, t("no_result")));
  const voters = Object.keys(answer.heads).length;
  const all = answer.agreeing === voters;
  const words = agreement(answer.agreeing, voters, won(answer));
  // A percentage beside the label is the longest bar below; where it is not, words say how the label came about.
  const plain = answer.label === won(answer);
  const sure = !plain ? "" : answer.decision
    ? decisionOf(answer.label, answer.heads, answer.probabilities) : percent(answer.probabilities[answer.label], 1);
  $("said").textContent = `${toldName(answer.label)}${sure && `, ${sure}`}. ${words}.`;
  const label = el("strong", {}, toldName(answer.label));
  label.style.setProperty("--of-label", plain ? info.colours[answer.label] : "var(--ink)");
  $("answer").replaceChildren(
    el("div", { className: "verdict", id: "verdict" }, label, el("span", { className: answer.decision ? "why" : "" }, sure)),
    el("p", { className: "agree" }, el("span", { className: all ? "tag" : "tag split" }, words)),
    ...(answer.problem ? [el("p", { className: "alert" }, t("noticed"), " ", el("span", { lang: "en" }, answer.problem))] : []),
    bars(answer.probabilities),
    abstained() ?? "",
    ...(info.coverage.length ? [coverageCurve(info.coverage, answer.probabilities[won(answer)])] : []),
    el("p", { className: "hint" }, t(answer.calibrated ? "calibrated" : "not_calibrated")),
    ...(answer.by_head.length > 1 || answer.by_head[0].weights
      ? [el("h3", {}, t("every_head")), el("div", { className: "heads", id: "heads" }, ...answer.by_head.map(headCard))]
      : []),
  );
}

// --- the explanation

async function explain(occlude = false) {
  const mine = asked;
  const head = $("head").value || info.heads[0].run;
  const wanted = $("target").value || won(answer);
  $("explanation").hidden = false;
  $("why-now").hidden = true;
  complain("why-problem", "");
  $("thinking").textContent = t(occlude ? "occluding" : "explaining");
  $("thinking").hidden = false;
  $("occlude").disabled = true;
  if (!occlude) $("explained").hidden = true;
  const query = new URLSearchParams({ run: head, target: wanted, occlusion: String(occlude) });
  try {
    const found = await askJson(`explain?${query}`, { method: "POST", body: formOf(posted) });
    if (mine !== asked || head !== ($("head").value || info.heads[0].run) || wanted !== ($("target").value || won(answer))) return;
    explanation = found;
    listLayers(occlude);
    await showExplanation();
  } catch (error) {
    if (mine === asked) complain("why-problem", error.message);
  } finally {
    if (mine === asked) {
      $("thinking").hidden = true;
      $("occlude").disabled = false;
    }
  }
}

function listLayers(covered) {
  const before = $("layer").value;
  const maps = explanation.picture?.grad_cam ?? [];
  const names = maps.map((map, i) => [String(i), t("cam_at", { layer: map.layer })]);
  if (explanation.picture?.occlusion) names.push(["occlusion", t("covering")]);
  const last = String(maps.length - 1);
  const chosen = covered ? "occlusion" : names.some(([value]) => value === before) ? before : last;
  select($("layer"), names, chosen);
}

function shownMap() {
  const part = explanation.picture;
  if ($("layer").value !== "occlusion") return part.grad_cam[Number($("layer").value)];
  const most = Math.max(...part.occlusion.values.flat(), 0);
  const values = part.occlusion.values.map((row) => row.map((v) => (most > 0 ? Math.max(v, 0) / most : 0)));
  return { values, maximum: most, peak: part.occlusion.peak, grid: part.occlusion.grid, correlation: null };
}

async function showExplanation() {
  if (!explanation) return;
  const { picture: seen, text, modality } = explanation;
  $("explained").hidden = false;
  $("picture-side").hidden = !seen;
  if (seen) {
    const map = shownMap();
    await drawMap($("canvas"), seen.seen, map.values, $("strength").value / 100);
    const place = map.maximum > 0 ? placeOf(map.peak, map.grid) : t("nowhere");
    $("canvas").setAttribute("aria-label", t("canvas", { label: labelName(explanation.target), place }));
    const agrees = map.correlation === null ? "" : t("agrees", { r: signed(map.correlation) });
    $("place").textContent = t("place", { place }) + agrees;
    $("occlude").hidden = Boolean(seen.occlusion);
  }
  $("text-side").hidden = !text;
  if (text) showWords(text);
  const most = Math.max(Math.abs(modality.image), Math.abs(modality.text), 1e-9);
  $("shares").replaceChildren(...[["picture", modality.image], ["text", modality.text]].flatMap(([half, value]) => {
    const missing = explanation.missing.includes(half);
    const said = missing ? t("no_part") : t(value < 0 ? "word_against" : "word_for", { v: signed(value) });
    return [el("dt", {}, t(half)), el("dd", {}, missing ? "" : sided(value / most)), el("dd", { className: "value" }, said)];
  }));
  const missing = explanation.missing.map((half) => t(`missing_${half}`));
  $("shares-note").textContent = [t("without"), ...missing].join(" ");
  $("why-note").textContent = t("trust");
}

function showWords(text) {
  const method = $("method").value;
  const values = text.words.map((word) => word[method]);
  const most = Math.max(...values.map(Math.abs), 1e-9);
  const spans = text.words.flatMap((word, i) => {
    const share = Math.abs(values[i]) / most;
    const side = share < 0.03 ? "" : values[i] > 0 ? "for" : "against";
    const said = t(values[i] > 0 ? "word_for" : "word_against", { v: signed(values[i]) });
    const span = el("span", { className: `word ${side}`, title: said }, word.word, el("span", { className: "unseen" }, ` (${said})`));
    span.style.background = side ? `color-mix(in srgb, var(--${side}) ${percent(0.06 + share * (values[i] > 0 ? 0.26 : 0.6))}, transparent)` : "";
    return i ? [" ", span] : [span];
  });
  $("words").replaceChildren(...(spans.length ? spans : [t("no_words")]));
  const columns = ["occlusion", "integrated", "grad_cam"];
  const head = el("tr", {}, el("th", { scope: "col" }, t("word")), ...columns.map((name) => el("th", { className: "r", scope: "col" }, t(name))));
  const ranked = [...text.words].sort((a, b) => b[method] - a[method]);
  const rows = ranked.map((word) =>
    el("tr", {}, el("td", {}, word.word), ...columns.map((name) => el("td", { className: "r" }, signed(word[name])))));
  $("word-table").replaceChildren(el("table", {}, el("thead", {}, head), el("tbody", {}, ...rows)));
}

$("head").addEventListener("change", () => posted && explain());
$("target").addEventListener("change", () => posted && explain());
$("method").addEventListener("change", () => explanation?.text && showWords(explanation.text));
$("layer").addEventListener("change", showExplanation);
$("strength").addEventListener("input", showExplanation);
$("occlude").addEventListener("click", () => explain(true));
$("why-now").addEventListener("click", () => explain());

// --- the start

function showInfo() {
  if (!info) return;
  const { encoder, data } = info;
  const n = info.heads.length;
  $("about").textContent = t(n > 1 ? "about" : "about_one", { heads: n, encoder, data });
  select($("head"), info.heads.map((head) => [head.run, fusionName(head.fusion)]), $("head").value || info.heads[0].run);
  const predicted = answer ? `${t("vote")}: ${labelName(won(answer))}` : t("vote");
  select($("target"), [["", predicted], ...info.labels.map((name) => [name, labelName(name)])], $("target").value);
}

const pictureOf = async (row, whole) => (await ask(`review/pictures/${row}${whole ? "?whole=true" : ""}`)).blob();

/** Label one of the posts that are reviewed. */
async function tryRow(row, asking) {
  $("explained").hidden = true;
  try {
    const [text] = await askJson(`review/texts?row=${row}&whole=true`);
    showPicture(await pictureOf(row, true).catch(() => null));
    $("text").value = text;
    shownRow = true;
    countText();
    await label(asking);
  } catch (error) { complain("problem", error.message); }
}

/** The examples: posts of the served data. The first, or the one that the address names, is labelled at once. */
async function showExamples() {
  if (!info.review) return;
  const rows = await askJson("review/examples").catch(() => []);
  const texts = rows.length ? await askJson(`review/texts?${rows.map((row) => `row=${row}`).join("&")}`) : [];
  $("examples-title").hidden = !rows.length;
  $("examples").replaceChildren(...rows.map((row, i) => {
    const image = el("img", { alt: "" });
    pictureOf(row).then((blob) => { image.src = URL.createObjectURL(blob); }).catch(() => {});
    return el("li", {}, el("button", { type: "button", onclick: () => tryRow(row, true) }, image, el("span", {}, texts[i])));
  }));
  const named = new URLSearchParams(location.search).get("row");
  if (named !== null) await tryRow(Number(named), true);
  else if (rows.length && !picture && !$("text").value) await tryRow(rows[0], false);
}

onLanguage(() => {
  showInfo();
  countText();
  if (answer) showAnswer();
  if (explanation) { listLayers($("layer").value === "occlusion"); showExplanation(); }
});

startLanguage();
info = await askJson("info").catch((error) => { complain("problem", error.message); return null; });
if (info && !info.heads.length) location.replace("review"); // nothing is trained yet
else if (info) {
  if (info.key) askForKey(showExamples);
  showInfo();
  linkPages(info);
  $("picture-field").hidden = !served().picture;
  $("text-field").hidden = !served().text;
}
if (info?.heads.length) await showExamples();
document.documentElement.dataset.ready = "yes";
