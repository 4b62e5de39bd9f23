
"use strict";
// Scores live in `scores` (code: 1 to 10) and, at every change, in this browser's storage.
const { rater, sheet } = document.body.dataset;
const storage = `ratings ${sheet}`;
const papers = [...document.querySelectorAll(".paper")];
const items = [...document.querySelectorAll(".item")];
const byId = (id) => document.getElementById(id);
const columns = ["paper", "model", "rater", "score", "source", "category"];
let scores = {};
let current = items[0];

const codeOf = (item) => item.dataset.code;
const paperOf = (item) => item.closest(".paper");
const itemsOf = (paper) => items.filter((item) => paperOf(item) === paper);
const unrated = (some) => some.filter((item) => !(codeOf(item) in scores));
const isScore = (value) => /^([1-9]|10)$/.test(value);

function warn(text) {
  byId("warning").textContent = text;
  byId("warning").hidden = !text;
}

// --- keeping ------------------------------------------------------------------------------------

function keep() {
  try {
    localStorage.setItem(storage, JSON.stringify({ scores, at: codeOf(current) }));
    window.onbeforeunload = null;
  } catch {
    warn("This browser keeps nothing: export the CSV before you close the page.");
    window.onbeforeunload = (event) => event.preventDefault();
  }
}

function recall() {
  let kept = {};
  try {
    kept = JSON.parse(localStorage.getItem(storage)) ?? {};
  } catch {
    warn("What this browser kept of an earlier session cannot be read: restore an exported CSV.");
  }
  const known = Object.entries(kept.scores ?? {}).filter(
    ([code, score]) => items.some((item) => codeOf(item) === code) && isScore(score));
  scores = Object.fromEntries(known);
  return items.find((item) => codeOf(item) === kept.at) ?? current;
}

// --- showing ------------------------------------------------------------------------------------

function show() {
  for (const item of items) {
    item.classList.toggle("marked", item === current);
    for (const input of item.querySelectorAll("input"))
      input.checked = input.value === String(scores[codeOf(item)] ?? "");
  }
  for (const paper of papers) {
    paper.hidden = paper !== paperOf(current);
    const left = unrated(itemsOf(paper)).length;
    paper.querySelector(".done").textContent = left ? `${left} to rate` : "✓ all rated";
  }
  const rated = items.length - unrated(items).length;
  const place = papers.indexOf(paperOf(current));
  byId("progress").value = rated;
  byId("status").textContent = rated === items.length
    ? `All ${rated} rated: export the CSV`
    : `${rated} of ${items.length} rated`;
  byId("place").textContent = `${place + 1} of ${papers.length}`;
  byId("previous").disabled = place === 0;
  byId("next").disabled = place === papers.length - 1;
}

function mark(item, scroll = true) {
  if (!item) return;
  const turned = paperOf(item) !== paperOf(current);
  current = item;
  show();
  keep();
  if (turned) window.scrollTo(0, 0);
  if (scroll && !(turned && itemsOf(paperOf(item))[0] === item))
    item.scrollIntoView({ block: "nearest" });
}

// --- rating -------------------------------------------------------------------------------------

function rate(item, score) {
  scores[codeOf(item)] = String(score);
  mark(item, false);
}

function next(some) {
  const after = some.slice(some.indexOf(current) + 1);
  return unrated(after)[0] ?? unrated(some)[0];
}

function turn(step) {
  const paper = papers[papers.indexOf(paperOf(current)) + step];
  if (paper) mark(unrated(itemsOf(paper))[0] ?? itemsOf(paper)[0]);
}

function step(by) {
  const own = itemsOf(paperOf(current));
  mark(own[own.indexOf(current) + by]);
}

const keys = {
  ArrowDown: () => step(1),
  ArrowUp: () => step(-1),
  ArrowRight: () => turn(1),
  ArrowLeft: () => turn(-1),
  Delete: () => { delete scores[codeOf(current)]; mark(current); },
  n: () => mark(next(items)),
};
keys.Backspace = keys.Delete;

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  const digit = /^[0-9]$/.test(event.key);
  if (!digit && !(event.key in keys)) return;
  event.preventDefault();
  if (!digit) return keys[event.key]();
  if (event.repeat) return; // a key held down rates one completion, not all
  rate(current, event.key === "0" ? 10 : Number(event.key));
  mark(next(itemsOf(paperOf(current))));
});
for (const item of items) {
  item.addEventListener("click", (event) => {
    // A button that is being pressed is left alone until it is: its change comes next.
    if (item !== current && !event.target.matches("input")) mark(item, false);
  });
  item.addEventListener("change", (event) => rate(item, event.target.value));
}
byId("previous").addEventListener("click", () => turn(-1));
byId("next").addEventListener("click", () => turn(1));

// --- files --------------------------------------------------------------------------------------

function exported() {
  const rows = items.map((item) => {
    const { paper, source } = paperOf(item).dataset;
    return [paper, codeOf(item), rater, scores[codeOf(item)] ?? "", source, ""].join(",");
  });
  return [columns.join(","), ...rows, ""].join("\r\n");
}

byId("export").addEventListener("click", () => {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([exported()], { type: "text/csv" }));
  link.download = `ratings-${rater}.csv`;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000);
  const left = unrated(items).length;
  warn(left ? `Exported; ${left} continuations have no score yet.` : "");
});

byId("restore").addEventListener("click", () => byId("file").click());
byId("file").addEventListener("change", async (event) => {
  const [file] = event.target.files;
  if (!file) return;
  const lines = (await file.text()).trim().split(/\r?\n/).map((line) => line.split(","));
  event.target.value = "";
  const rows = lines.slice(1).map((cells) => [cells[1], cells[3]]);
  const codes = new Set(items.map(codeOf));
  if (lines[0].join() !== columns.join() || !rows.every(([code]) => codes.has(code)))
    return warn("That file is no export of this sheet: nothing was restored.");
  if (!rows.every(([, score]) => score === "" || isScore(score)))
    return warn("That file has scores that are none of 1 to 10: nothing was restored.");
  warn("");
  for (const [code, score] of rows) if (score) scores[code] = score;
  mark(current);
});

// Another tab with the same sheet: both show the same scores.
window.addEventListener("storage", (event) => {
  if (event.key !== storage) return;
  recall();
  show();
});

current = recall();
document.querySelector(".help").open = !Object.keys(scores).length;
show();
