// The API's description, made readable.

import { $, askJson, el, linkPages, onLanguage, startLanguage, t } from "./common.js";

let described = null;

const CURL = {
  "/predict": 'curl -F text="What a day!" -F image=@picture.jpg {base}/predict',
  "/explain": 'curl -F text="What a day!" -F image=@picture.jpg "{base}/explain?target=positive"',
  "/healthz": "curl {base}/healthz",
  "/metrics": "curl {base}/metrics",
};

const nameOf = (schema) => schema.$ref?.split("/").pop() ?? (schema.anyOf ?? schema.allOf)?.map(nameOf).join(" | ") ?? schema.type ?? "";

/** A text whose `words` in backticks become code. */
const prose = (text) => text.split("`").map((part, i) => (i % 2 ? el("code", {}, part) : part));

function table(rows) {
  return el("div", { className: "scroll" }, el("table", { lang: "en" }, el("tbody", {}, ...rows.map((cells) =>
    el("tr", {}, ...cells.map((cell) => el("td", {}, ...(typeof cell === "string" ? prose(cell) : [cell]))))))));
}

function endpoint(path, method, about) {
  const card = el("section", { className: "card endpoint" },
    el("h2", {}, el("b", {}, method.toUpperCase()), path),
    el("p", { lang: "en" }, ...prose(`${about.summary}. ${about.description ?? ""}`)));
  if (about.security) card.append(el("p", { className: "hint" }, t("needs_key")));
  if (CURL[path]) card.append(el("pre", { tabIndex: 0 }, el("code", {}, CURL[path].replace("{base}", new URL(".", location).href.slice(0, -1)))));
  if (about.requestBody) {
    card.append(el("h3", {}, t("body")), table(Object.entries(about.requestBody.content).map(([type, { schema }]) =>
      [el("code", {}, type), schema.description ?? nameOf(schema)])));
  }
  if (about.parameters?.length) {
    card.append(el("h3", {}, t("parameters")), table(about.parameters.map((one) => {
      const kinds = one.schema.enum ?? one.schema.anyOf?.map((kind) => kind.type).filter((kind) => kind !== "null") ?? [one.schema.type];
      const standard = one.schema.default === undefined || one.schema.default === "" ? "" : ` (${one.schema.default})`;
      return [el("code", {}, one.name), kinds.join(", ") + standard, one.description ?? ""];
    })));
  }
  card.append(el("h3", {}, t("answers")), table(Object.entries(about.responses).map(([status, one]) => {
    const schema = Object.values(one.content ?? {})[0]?.schema;
    return [el("code", {}, status), one.description, schema ? nameOf(schema) : ""];
  })));
  return card;
}

function show() {
  if (!described) return;
  const found = Object.entries(described.paths).flatMap(([path, methods]) =>
    Object.entries(methods).map(([method, about]) => endpoint(path, method, about)));
  const models = Object.entries(described.components.schemas).map(([name, model]) => {
    const rows = Object.entries(model.properties ?? {}).map(([field, schema]) =>
      [el("code", {}, field), nameOf(schema), schema.description ?? ""]);
    return el("details", {}, el("summary", {}, name), el("p", { lang: "en" }, model.description ?? ""), table(rows));
  });
  $("endpoints").replaceChildren(...found, el("section", { className: "card endpoint" }, ...models));
}

onLanguage(show);
startLanguage();
try {
  described = await askJson("openapi.json");
  show();
  linkPages(await askJson("info"));
} catch (error) {
  $("problem").textContent = error.message;
  $("problem").hidden = false;
}
document.documentElement.dataset.ready = "yes";
