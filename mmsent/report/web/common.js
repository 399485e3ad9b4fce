// What the pages share: language, elements, and asking the service.

import { CHINESE } from "./chinese.js";
import { ENGLISH } from "./english.js";

const STRINGS = { en: ENGLISH, zh: CHINESE };

export const kept = (name) => { try { return localStorage.getItem(name); } catch { return null; } };
export const keep = (name, value) => { try { localStorage.setItem(name, value); } catch { /* private windows keep nothing */ } };

const written = document.getElementById("language") ? null : document.documentElement.lang; // of a page in one language
export let language = (written ?? kept("mmsent language") ?? navigator.language).startsWith("zh") ? "zh" : "en";
const listeners = [];

export const $ = (id) => document.getElementById(id);
const named = (kind, name) => (Object.hasOwn(STRINGS[language][kind], name) ? STRINGS[language][kind][name] : name);
export const labelName = (label) => named("labels", label);
export const fusionName = (fusion) => named("fusions", fusion);
export const percent = (share, digits = 0) => `${(100 * share).toFixed(digits)}%`;
export const signed = (value) => `${value < 0 ? "−" : "+"}${Math.abs(value).toFixed(2)}`;

/** What the page says under a name, in its language and for n things, with values in it. */
export function t(name, values = {}) {
  const forms = STRINGS[language][name].split("|");
  return (values.n === 1 ? forms[0] : forms.at(-1)).replace(/\{(\w+)\}/g, (_, key) => String(values[key]));
}

/** Call back whenever the language changes, so that what a script wrote is written anew. */
export const onLanguage = (listener) => listeners.push(listener);

function translate() {
  document.documentElement.lang = language === "zh" ? "zh-CN" : "en";
  for (const node of document.querySelectorAll("[data-t]")) node.textContent = t(node.dataset.t);
  for (const [key, name] of [["tLabel", "aria-label"], ["tAlt", "alt"], ["tPlaceholder", "placeholder"]]) {
    const attribute = `data-${key.replace(/[A-Z]/g, (c) => `-${c.toLowerCase()}`)}`;
    for (const node of document.querySelectorAll(`[${attribute}]`)) node.setAttribute(name, t(node.dataset[key]));
  }
  const button = $("language");
  if (button) {
    button.textContent = t("other_language");
    button.lang = language === "zh" ? "en" : "zh-CN";
  }
  for (const listener of listeners) listener();
}

/** Start the page's language and its switch. Call once, after all listeners. */
export function startLanguage() {
  $("language")?.addEventListener("click", () => {
    language = language === "zh" ? "en" : "zh";
    keep("mmsent language", language);
    translate();
  });
  translate();
}

/** Leave out the links to pages that this service has nothing for. */
export function linkPages({ heads, review }) {
  const there = { "./": heads.length > 0, review, map: review && heads.length > 0, compare: review && heads.length > 1 };
  for (const link of document.querySelectorAll("nav a:not([aria-current])")) link.hidden = there[link.getAttribute("href")] === false;
}

/** How many heads are behind a label, in words. */
export function agreement(agreeing, heads, label) {
  if (heads === 1) return t("one_head");
  if (agreeing === heads) return t("all_agree", { n: heads });
  return t(agreeing ? "some_agree" : "none_agree", { k: agreeing, n: heads, label: labelName(label) });
}

/** Why a label is not the one with the highest probability, in words; the service says that it is not. */
export function decisionOf(label, heads, probabilities) {
  const votes = {};
  for (const said of Object.values(heads)) votes[said] = (votes[said] ?? 0) + 1;
  const [mine, every] = [votes[label] ?? 0, Object.values(votes)];
  const likeliest = labelName(Object.entries(probabilities).sort((a, b) => b[1] - a[1])[0][0]);
  if (!every.length) return t("by_vote", { likeliest });
  if (mine < Math.max(...every) || every.filter((n) => n === mine).length > 1) return t("by_rule", { label: labelName(label) });
  return t("by_majority", { k: mine, n: Object.keys(heads).length, likeliest });
}

/** An element with properties and children; texts become text, never markup. */
export function el(name, properties = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(properties)) {
    if (key.startsWith("aria-") || key === "role" || key === "for") made.setAttribute(key, value);
    else made[key] = value;
  }
  made.append(...children.filter((child) => child !== null && child !== undefined));
  return made;
}

/** An element whose words follow the language. */
export function said(name, key, properties = {}) {
  const made = el(name, properties, t(key));
  made.dataset.t = key;
  return made;
}

/** Hand a file to the browser to save. */
export function saveAs(name, blob) {
  const url = URL.createObjectURL(blob);
  el("a", { href: url, download: name }).click();
  setTimeout(() => URL.revokeObjectURL(url), 10000);
}

/** A bar of a share in a colour. */
export function track(share, colour) {
  const bar = el("i");
  bar.style.width = `${100 * share}%`;
  bar.style.background = colour;
  return el("div", { className: "track", "aria-hidden": "true" }, bar);
}

/** A colour dark enough for white letters on it. */
export function darkened(colour) {
  let rgb = [1, 3, 5].map((at) => parseInt(colour.slice(at, at + 2), 16) * 0.88);
  const light = () => rgb.map((v) => (v <= 10 ? v / 255 / 12.92 : ((v / 255 + 0.055) / 1.055) ** 2.4))
    .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
  while (light() > 0.18) rgb = rgb.map((v) => 0.95 * v);
  return `rgb(${rgb.map(Math.round).join(", ")})`;
}

export function chip(label, colours) {
  const made = el("span", { className: "chip" }, labelName(label));
  made.style.background = darkened(colours[label] ?? "#444444");
  return made;
}

export function select(node, options, chosen) {
  node.replaceChildren(...options.map(([value, name]) => el("option", { value, selected: value === chosen }, name)));
}

// --- the service

export class Problem extends Error {
  constructor(message, status) { super(message); this.status = status; }
}

const keyOf = () => { try { return sessionStorage.getItem("mmsent key") || ""; } catch { return ""; } };

/** Show the field for the key, and keep what is typed for this tab. */
export function askForKey(then) {
  $("key-field").hidden = false;
  $("key").value = keyOf();
  $("key").addEventListener("change", () => {
    try { sessionStorage.setItem("mmsent key", $("key").value); } catch { /* asked again next time */ }
    then();
  });
}

/** Ask the service. Busy answers are tried again after the time they name; onWait hears of it. */
export async function ask(path, options = {}, onWait = () => {}, tries = 4) {
  const headers = new Headers(options.headers);
  const key = $("key")?.value || keyOf();
  if (key) headers.set("Authorization", `Bearer ${key}`);
  let answer;
  try {
    answer = await fetch(path, { ...options, headers });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Problem(t("offline"), 0);
  }
  if (answer.status === 503 && tries > 1) {
    const seconds = Math.min(10, Number(answer.headers.get("Retry-After")) || 1);
    onWait(seconds);
    await new Promise((done) => setTimeout(done, 1000 * seconds));
    return ask(path, options, onWait, tries - 1);
  }
  if (!answer.ok) {
    const said = await answer.json().catch(() => ({}));
    const words = STRINGS[language][`problem_${answer.status}`];
    const detail = said.detail ?? `${answer.status} ${answer.statusText}`;
    throw new Problem(!words ? detail : language === "en" ? `${words} (${detail})` : words, answer.status);
  }
  return answer;
}

export const askJson = async (...given) => (await ask(...given)).json();

/** Run at most so many tasks at once. */
export function pool(size) {
  const waiting = [];
  let running = 0;
  const next = () => {
    while (running < size && waiting.length) {
      running += 1;
      waiting.shift()().finally(() => { running -= 1; next(); });
    }
  };
  return (task) => { waiting.push(task); Promise.resolve().then(next); };
}

/** How to fetch images of the review or the map, a few at once: picture(row, whole) is an address. Image elements send no key. */
export function pictures(of = "review") {
  const fetching = pool(4);
  return (row, whole) => new Promise((done, failed) => {
    fetching(() => ask(`${of}/pictures/${row.row}${whole ? "?whole=true" : ""}`).then((answer) => answer.blob())
      .then((blob) => done(URL.createObjectURL(blob))).catch(failed));
  });
}

// --- windows over the page

/** A window; false unless its answer was chosen. */
export function over(className, label, ...children) {
  return new Promise((answer) => {
    const window = el("dialog", { className, "aria-label": label }, ...children);
    window.addEventListener("close", () => { window.remove(); answer(window.returnValue === "yes"); });
    document.body.append(window);
    window.showModal();
  });
}

/** A button that closes its window. */
export const closing = (name, value = "") => el("button", { type: "button", className: value ? "primary" : "plain",
  onclick: (event) => event.target.closest("dialog").close(value) }, t(name));
