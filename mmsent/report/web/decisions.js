// What somebody decided of posts: kept in the browser, undone, and set beside what others said.

import { keep, kept } from "./common.js";

/** from: {digest, rows, share} of a gallery; name(): who labels; on: {changed(row), agreed(), failed(message)}. */
export function makeDecisions({ digest, rows, share }, name, on) {
  let decided = new Map(); // a label by the id of every post looked at; "" where it cannot be corrected
  let undone = []; // [id, label before] for each decision
  let team = null; // what the service says of several people: {people, posts, cohen, fleiss, conflicts}
  let later = 0;
  const place = () => `mmsent labels ${digest} ${name()}`;
  const has = (row) => decided.has(row.id);
  const corrected = (row) => Boolean(decided.get(row.id)) && decided.get(row.id) !== row.label;
  const labelsOf = (some) => Object.fromEntries(some.map((row) => [row.id, decided.get(row.id)]));

  function load() {
    try { decided = new Map(JSON.parse(kept(place()) ?? "[]")); } catch { decided = new Map(); }
    undone = [];
  }

  function store() {
    keep(place(), JSON.stringify([...decided]));
    clearTimeout(later);
    later = setTimeout(tell, 400);
  }

  /** The labels of posts that can be corrected, by id. */
  const given = () => labelsOf(rows.filter((row) => row.correctable && decided.get(row.id)));

  /** Tell the service, and learn of the others. */
  async function tell() {
    if (!share || !name()) return;
    try {
      const found = await share(name(), given());
      team = found.people.length < 2 ? null : found;
      on.agreed();
    } catch (error) { on.failed(error.message); }
  }

  function put(row, label) {
    if (label === undefined) decided.delete(row.id);
    else decided.set(row.id, label);
    store();
    on.changed(row);
  }

  function set(row, label) {
    undone.push([row.id, decided.get(row.id)]);
    put(row, label);
  }

  const decide = (row, label) => { if (decided.get(row.id) !== label) set(row, label); };

  load();
  return {
    has,
    corrected,
    given,
    load,
    tell,
    team: () => team,
    any: () => rows.some(has),
    corrections: () => labelsOf(rows.filter(corrected)),
    labelOf: (row) => decided.get(row.id) || row.label,
    conflict: (row) => team?.conflicts[row.id],

    /** Say what a post's label is. */
    decide,

    /** Say what a post's label is; the same label again takes it back. */
    toggle(row, label) { set(row, decided.get(row.id) === label ? undefined : label); },

    /** The post is right as it is. Without a label, it is what the heads say. */
    confirm(row) {
      const label = row.correctable ? row.label ?? row.predicted : "";
      if (label !== null) decide(row, label);
    },

    /** Take the last decision back: its post, if there is one. */
    undo() {
      const [id, before] = undone.pop() ?? [];
      const row = rows.find((one) => one.id === id);
      if (row) put(row, before);
      return row;
    },

    /** Keep what was decided so far under a new name, or load what that name has kept. */
    rename(before) {
      if (!before && kept(place()) === null) store();
      else load();
      team = null;
    },

    discard() {
      decided.clear();
      undone = [];
      store();
    },
  };
}
