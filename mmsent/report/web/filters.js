// What a gallery's posts are sorted by and which of them are shown. fits: whether a choice makes sense for a post; where it
// does for none, it is not offered.

const against = (row) => {
  const heads = Object.values(row.heads);
  return heads.length ? heads.filter((label) => label !== row.predicted).length / heads.length : 0;
};
const doubt = (row) => (row.label === null ? -1 : 1 - (row.probabilities[row.label] ?? 0));

/** Shuffled, and always the same: a number made of the id (FNV-1a, its bits mixed). */
const shuffled = (row) => {
  let made = 2166136261;
  for (const letter of row.id) made = Math.imul(made ^ letter.codePointAt(0), 16777619);
  made = Math.imul(made ^ (made >>> 16), 2246822507);
  return (made ^ (made >>> 13)) >>> 0;
};

export const ORDERS = {
  disagreement: { by: (row) => row.confidence - 1000 * against(row), fits: (row) => Object.keys(row.heads).length > 1 },
  doubtful: { by: (row) => -doubt(row), fits: (row) => row.label !== null && row.predicted !== null },
  unsure: { by: (row) => row.confidence, fits: (row) => row.predicted !== null },
  sure: { by: (row) => -row.confidence, fits: (row) => row.predicted !== null },
  useful: { by: (row) => row.useful, fits: (row) => row.useful !== undefined }, // see rank in gallery.js
  random: { by: shuffled, fits: (row) => row.label === null },
  listed: { by: (row) => row.row, fits: () => true },
};

export const showing = (decisions) => ({
  all: { takes: () => true, fits: () => true },
  open: { takes: (row) => !decisions.has(row), fits: () => true },
  changed: { takes: decisions.corrected, fits: () => true },
  wrong: { takes: (row) => ![null, row.predicted].includes(row.label), fits: (row) => row.label !== null && row.predicted !== null },
  split: { takes: against, fits: (row) => Object.keys(row.heads).length > 1 },
  marked: { takes: (row) => row.marked, fits: (row) => row.marked },
  conflict: { takes: decisions.conflict, fits: () => Boolean(decisions.team()) },
});
