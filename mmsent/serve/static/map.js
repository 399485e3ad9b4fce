// The page of the map: the points come from the service, and so does each post.

import { $, askForKey, askJson, linkPages, pictures, startLanguage, t } from "./common.js";
import { startMap } from "./mapview.js";

let info = null;

function complain(message) {
  $("problem").textContent = message;
  $("problem").hidden = !message;
}

async function start() {
  let points;
  try {
    points = await askJson("map/points");
  } catch (error) { return complain(error.status === 404 ? t("map_absent") : error.message); }
  complain("");
  $("map-part").hidden = false;
  startMap(points, {
    info,
    picture: pictures("map"),
    why: (row) => row.review !== null && `./?row=${row.review}`,
    post: (i) => askJson(`map/posts/${i}`),
    chosen: (ids) => ids && `review#${new URLSearchParams({ ids: JSON.stringify(ids) })}`,
    useful: points.useful ? () => askJson("review/useful") : undefined,
  });
  window.mmsentMapDrawn = performance.now(); // for a test
}

startLanguage();
info = await askJson("info").catch((error) => { complain(error.message); return null; });
if (info) {
  linkPages(info);
  if (info.key) askForKey(start);
  await start();
}
document.documentElement.dataset.ready = "yes";
