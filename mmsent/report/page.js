// --- a page that is one file: its posts stand in it, and labels are saved as a file of their own

const embedded = $("posts") && JSON.parse($("posts").textContent);
const containing = (text) => (row) => [row.id, row.text].some((one) => one.toLowerCase().includes(text));
const frozen = $("points") && JSON.parse($("points").textContent);
if (embedded?.rows.length) {
  await startGallery({
    ...embedded,
    find: (text) => new Set(embedded.rows.filter(containing(text)).map((row) => row.row)),
    picture: (row) => row.picture,
    save(annotator, labels) {
      const name = `labels${annotator && `-${annotator.replace(/[^\w.-]+/gu, "_")}`}.json`;
      saveAs(name, new Blob([JSON.stringify({ annotator, labels }, null, 1)], { type: "application/json" }));
      return t("downloaded_labels", { name });
    },
  });
}
if (frozen) {
  const { points, encoder } = frozen;
  const cards = new Map(embedded.rows.map((row) => [row.id, row]));
  startMap(points, {
    info: { ...embedded.info, encoder },
    level: 3,
    post(i) {
      const { text = points.texts?.[i] ?? "", picture = null } = cards.get(points.ids[i]) ?? {};
      return { text, picture };
    },
    picture: (row) => row.picture,
    chosen(ids) {
      if (cards.size) showOnly(ids && new Set(ids.filter((id) => cards.has(id))));
      return "#errors";
    },
  });
}
startLanguage();
document.documentElement.dataset.ready = "yes";
