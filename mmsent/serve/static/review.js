// The page to look through posts and to label them: the gallery over the service.

import { $, ask, askForKey, askJson, fusionName, language, linkPages, onLanguage, pictures, saveAs, startLanguage, t } from "./common.js";
import { startGallery } from "./gallery.js";

const json = (body) => ({ method: "POST", body: JSON.stringify(body), headers: { "Content-Type": "application/json" } });
let page = null;
let team = 1; // people who label

function complain(message) {
  $("problem").textContent = message;
  $("problem").hidden = !message;
}

function showSource() {
  if (!page) return;
  const name = (run) => fusionName(info.heads.find((head) => head.run === run)?.fusion ?? run);
  const runs = page.runs.map(name).join(language === "zh" ? "、" : ", ");
  const bare = page.rows.some((row) => row.label === null);
  const source = page.table || (runs ? t(bare ? "validation_and_bare" : "validation_of", { runs }) : info.data);
  const open = page.rows.filter((row) => row.correctable);
  const can = open.length ? (open.some((row) => row.label !== null) ? "can_correct" : "can_label") : page.posts ? "can_look" : "no_posts";
  $("source").textContent = `${t("review_source", { source, posts: t("posts", { n: page.rows.length }) })} ${t(can)}`;
}

async function start() {
  try {
    page = await askJson("review/rows");
  } catch (error) { return complain(error.status === 404 ? t("review_none") : error.message); }
  complain("");
  showSource();
  await startGallery({
    ...page, info, alone: true, list: true, picture: pictures(),
    async load(rows) {
      if (!rows.length) return;
      const texts = await askJson(`review/texts?${rows.map(({ row }) => `row=${row}`).join("&")}`);
      texts.forEach((text, i) => { rows[i].text = text; });
    },
    find: async (text) => new Set(await askJson(`review/find?${new URLSearchParams({ text })}`)),
    why: info.heads.length ? (row) => (row.picture || row.text) && `./?row=${row.row}` : undefined,
    useful: page.useful ? () => askJson("review/useful") : undefined,
    async share(person, labels) {
      const found = await askJson("review/labels", json({ person, labels }));
      team = found.people.length;
      return found;
    },
    async save(_, labels, corrections) {
      const answer = await ask("review/list", json({ corrections: team > 1 ? labels : corrections }));
      const name = /filename="([^"]+)"/.exec(answer.headers.get("Content-Disposition") ?? "")?.[1] ?? "list.txt";
      saveAs(name, await answer.blob());
      return `${t(page.fresh ? "downloaded_first" : "downloaded", { name })} ${team > 1 ? t("downloaded_team", { people: team }) : ""}`;
    },
  });
}

onLanguage(showSource);
startLanguage();
const info = await askJson("info").catch((error) => { complain(error.message); return null; });
if (info) {
  if (info.key) askForKey(() => { if (!page) start(); });
  linkPages(info);
  if (info.review) await start();
  else complain(t("review_none"));
}
document.documentElement.dataset.ready = "yes";
