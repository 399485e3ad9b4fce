"use strict";
(function () {
  const field = (name) => document.getElementById("filter-" + name);
  const list = document.getElementById("cards");
  if (!list) return;  // no error to show
  const cards = Array.from(list.children);
  const bound = (name, otherwise) => {
    const value = parseFloat(field(name).value);
    return Number.isFinite(value) ? value / 100 : otherwise;
  };
  function apply() {
    const truth = field("truth").value, predicted = field("predicted").value;
    const low = bound("low", 0), high = bound("high", 1);
    const wanted = field("text").value.trim().toLowerCase();
    let shown = 0;
    for (const card of cards) {
      const at = Number(card.dataset.confidence);
      const fits = (!truth || card.dataset.truth === truth)
        && (!predicted || card.dataset.predicted === predicted)
        && at >= low - 1e-9 && at <= high + 1e-9
        && (!wanted || card.querySelector(".text").textContent.toLowerCase().includes(wanted));
      card.hidden = !fits;
      shown += fits ? 1 : 0;
    }
    field("count").textContent = shown + " of " + cards.length + " " + (list.dataset.what || "errors");
  }
  function sort() {
    const sign = field("order").value === "up" ? 1 : -1;
    const key = (card) => Number(card.dataset.confidence);
    cards.sort((a, b) => sign * (key(a) - key(b)));
    list.append(...cards);
  }
  for (const name of ["truth", "predicted", "low", "high", "text"]) {
    field(name).addEventListener("input", apply);
    field(name).addEventListener("change", apply);
  }
  field("order").addEventListener("change", sort);
  const form = document.querySelector(".filters");
  form.addEventListener("submit", (event) => event.preventDefault());
  form.addEventListener("reset", () => setTimeout(() => { sort(); apply(); }, 0));
})();
