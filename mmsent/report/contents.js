"use strict";
// Contents that say where the reader is, and figures that enlarge.
(function () {
  const links = new Map(Array.from(document.querySelectorAll(".contents a"), (a) => [a.hash.slice(1), a]));
  const parts = Array.from(links.keys(), (id) => document.getElementById(id)).filter(Boolean);
  let marked = null;
  function mark() {
    const line = window.innerHeight / 3;
    let here = parts[0];
    for (const part of parts) if (part.getBoundingClientRect().top <= line) here = part;
    const link = here && links.get(here.id);
    if (!link || link === marked) return;
    marked?.removeAttribute("aria-current");
    (marked = link).setAttribute("aria-current", "true");
    const list = link.closest("nav"), at = link.getBoundingClientRect(), frame = list.getBoundingClientRect();
    if (at.top < frame.top || at.bottom > frame.bottom) list.scrollTop += at.top - frame.top - frame.height / 2;
    if (at.left < frame.left || at.right > frame.right) list.scrollLeft += at.left - frame.left - 20;
  }
  if (parts.length) {
    addEventListener("scroll", mark, { passive: true });
    addEventListener("resize", mark);
    mark();
  }
  const dialog = document.getElementById("enlarged");
  if (!dialog) return;
  const shown = new Image();
  for (const button of document.querySelectorAll(".enlarge")) {
    button.addEventListener("click", () => {
      const image = button.querySelector("img");
      shown.src = image.src;
      shown.alt = image.alt;
      dialog.append(shown);
      dialog.showModal();
    });
  }
  dialog.addEventListener("click", () => dialog.close());
})();
