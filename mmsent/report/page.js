// --- a page that is one file: its posts stand in it, and labels are saved as a file of their own

const embedded = $("posts") && JSON.parse($("posts").textContent);
const containing = (text) => (row) => [row.id, row.text].some((one) => one.toLowerCase().includes(text));
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
startLanguage();
document.documentElement.dataset.ready = "yes";
