// The reader: the text of one window at a time. Token s is shaded by, and shows, the distribution that predicts it: the
// target of row s − 1 of the same part. A "⋯" after the last row of a part shows that row's target.

const LEVELS = 9;
const SHADES = [
  { key: "loss", title: "Teacher loss", unit: "how much the token surprised the teacher, −log p", of: (w) => w.loss },
  { key: "entropy", title: "Entropy", unit: "how unsure the teacher was before the token", of: (w) => w.entropy },
  { key: "student", title: "Student’s error", unit: "KL of teacher to student over the stored buckets, a lower bound", of: (w) => w.student?.kl ?? [] },
];
const reader = { window: 0, shade: null, cells: [], elements: [], pinned: -1, shown: -1, hits: [] };

const pieceText = (piece) => REPORT.pieces.text[piece] ?? `‹${REPORT.pieces.id[piece]}›`;

/** The cells of a window on the page: {text, row, target}; row or target is −1 if there is none. */
function cellsOf(window) {
  const starts = new Set(window.parts.map((part) => part.row));
  const cells = [];
  window.token.forEach((piece, row) => {
    if (row && starts.has(row)) cells.push({ text: "", row: -1, target: row - 1 });
    cells.push({ text: window.joined[row] ?? pieceText(piece), row, target: starts.has(row) ? -1 : row - 1 });
  });
  if (window.token.length) cells.push({ text: "", row: -1, target: window.token.length - 1 });
  return cells;
}

/** The value of the darkest shade: the 98th percentile of the sample, rounded up. */
function darkest(shade) {
  const values = REPORT.windows.flatMap((window) => shade.of(window)).filter(known).sort((a, b) => a - b);
  return Math.max(1, Math.ceil(values[Math.floor(values.length * 0.98)] ?? 1));
}

function setUpReader() {
  const shades = SHADES.filter((shade) => REPORT.windows.some((window) => shade.of(window).some(known)));
  for (const shade of shades) {
    shade.max = darkest(shade);
    const input = make("input", { type: "radio", name: "shade", value: shade.key, onchange: () => shadeBy(shade) });
    byId("shading").append(make("label", {}, input, make("span", {}, shade.title)));
  }
  byId("window").append(...REPORT.windows.map((window, i) => make("option", { value: i }, windowTitle(window))));
  byId("window").addEventListener("change", (event) => showWindow(Number(event.target.value)));
  byId("previous").addEventListener("click", () => showWindow(reader.window - 1));
  byId("next").addEventListener("click", () => showWindow(reader.window + 1));
  byId("query").addEventListener("input", (event) => search(event.target.value));
  byId("query").addEventListener("keydown", (event) => {
    if (event.key === "Escape") { event.target.value = ""; search(""); }
    if (event.key === "Enter") byId("hits").querySelector("button")?.click();
  });
  listenToTokens(byId("text"));
  if (!REPORT.windows.length) {
    byId("text").append("The dataset has no windows.");
    return;
  }
  showWindow(0);
  const first = shades[0];
  if (first) { byId("shading").querySelector("input").checked = true; shadeBy(first); }
}

function windowTitle(window) {
  const reason = window.reason === "random" ? "" : ` · ${words(window.reason)}`;
  return `window ${count(window.window)} · ${window.split}${reason}`;
}

function showWindow(index) {
  const last = REPORT.windows.length - 1;
  reader.window = Math.max(0, Math.min(last, index));
  const window = REPORT.windows[reader.window];
  byId("window").value = String(reader.window);
  byId("previous").disabled = reader.window === 0;
  byId("next").disabled = reader.window === last;
  reader.cells = cellsOf(window);
  reader.elements = reader.cells.map(tokenElement);
  const parts = new Map(window.parts.map((part) => [part.row, part]));
  byId("text").replaceChildren(...reader.cells.flatMap((cell, i) =>
    parts.has(cell.row) ? [partTitle(parts.get(cell.row)), reader.elements[i]] : [reader.elements[i]]));
  byId("text").scrollTop = 0;
  const cut = window.num_rows - window.token.length;
  byId("cut").textContent = `${window.shard}:${window.window_in_shard}. ` +
    (cut > 0 ? `The first ${count(window.token.length)} of ${count(window.num_rows)} tokens; logitcask inspect --window ${window.window} shows them all.` : "");
  reader.pinned = reader.shown = -1;
  if (reader.elements.length) reader.elements[0].tabIndex = 0;
  shadeTokens();
  markHits();
  showNothing();
}

function tokenElement(cell, index) {
  const text = cell.row < 0 ? "⋯" : readable(cell.text) || "·";
  const element = make("span", { class: cell.row < 0 ? "token end" : "token", tabindex: "-1", role: "button", "data-cell": index }, text);
  if (!text.trim() || text.includes("↵")) element.setAttribute("aria-label", cell.text === "" ? "no text" : named(cell.text));
  const kind = REPORT.windows[reader.window].kind[cell.target < 0 ? cell.row : cell.target];
  if (kind === "prompt" || kind === "context") element.classList.add("no-target");
  return element;
}

function partTitle(part) {
  const from = part.offset ? `, from its token ${count(part.offset)}` : "";
  return make("div", { class: "part" }, make("b", {}, readable(part.document)), `${from} · ${readable(part.source)}`);
}

function shadeBy(shade) {
  reader.shade = shade;
  const ramp = Array.from({ length: LEVELS }, (_, level) => make("i", { class: `level-${level}` }));
  byId("legend").replaceChildren(make("span", {}, `${shade.title}: ${shade.unit}`),
    make("span", { class: "ramp" }, "0", ...ramp, `≥ ${shade.max} nats`));
  shadeTokens();
}

function shadeTokens() {
  if (!reader.shade) return;
  const values = reader.shade.of(REPORT.windows[reader.window]);
  reader.cells.forEach((cell, i) => {
    const value = cell.target < 0 ? null : values[cell.target];
    const level = known(value) ? Math.min(LEVELS - 1, Math.floor(((LEVELS - 1) * value) / reader.shade.max)) : 0;
    reader.elements[i].dataset.level = String(level);
  });
}

// ---- choosing a token -------------------------------------------------------------------------------------------

function listenToTokens(text) {
  const cellAt = (event) => Number(event.target.closest?.(".token")?.dataset.cell ?? -1);
  text.addEventListener("pointerover", (event) => {
    if (event.pointerType === "mouse" && reader.pinned < 0 && cellAt(event) >= 0) showCell(cellAt(event));
  });
  text.addEventListener("click", (event) => {
    const index = cellAt(event);
    if (index < 0) return;
    pin(index === reader.pinned ? -1 : index);
    rove(index);
  });
  // Only for focus by a key: a tap focuses before it clicks, and a sheet that opens in between would receive the click.
  text.addEventListener("focusin", (event) => {
    if (cellAt(event) >= 0 && event.target.matches(":focus-visible")) showCell(cellAt(event));
  });
  text.addEventListener("keydown", (event) => {
    const index = cellAt(event);
    if (index < 0 || event.altKey || event.ctrlKey || event.metaKey) return;
    const to = destination(event.key, index);
    if (known(to)) { event.preventDefault(); if (reader.pinned >= 0) pin(to); rove(to); }
    else if (event.key === "Enter" || event.key === " ") { event.preventDefault(); pin(index === reader.pinned ? -1 : index); }
  });
  document.addEventListener("keydown", (event) => {
    if (event.key === "Escape" && reader.shown >= 0) { pin(-1); showNothing(); }
  });
}

/** The token to which a key moves the focus; null for other keys. Up and down follow the lines of the layout. */
function destination(key, index) {
  const last = reader.elements.length - 1;
  if (key === "ArrowRight") return Math.min(last, index + 1);
  if (key === "ArrowLeft") return Math.max(0, index - 1);
  if (key === "Home") return 0;
  if (key === "End") return last;
  if (key !== "ArrowDown" && key !== "ArrowUp") return null;
  const place = (i) => reader.elements[i].getClientRects()[0];
  const from = place(index), way = key === "ArrowDown" ? 1 : -1;
  let best = index, line = null;
  for (let i = index + way; i >= 0 && i <= last; i += way) {
    const at = place(i);
    if (!at || Math.abs(at.top - from.top) < 4) continue;
    line ??= at.top;
    if (Math.abs(at.top - line) >= 4) break;
    if (best === index || Math.abs(at.left - from.left) < Math.abs(place(best).left - from.left)) best = i;
  }
  return best;
}

/** Moves the focus, and makes this token the only one in the tab order (roving tabindex). */
function rove(index) {
  for (const element of byId("text").querySelectorAll('.token[tabindex="0"]')) element.tabIndex = -1;
  reader.elements[index].tabIndex = 0;
  reader.elements[index].focus({ preventScroll: false });
}

function pin(index) {
  reader.elements[reader.pinned]?.classList.remove("pinned");
  reader.pinned = index;
  reader.elements[index]?.classList.add("pinned");
  if (index < 0) return;
  showCell(index);
  // On a phone the panel is a sheet over the lower half; scroll so that the token stays visible above it.
  if (getComputedStyle(byId("panel")).position === "fixed") keepAbove(reader.elements[index], byId("panel"));
}

function keepAbove(element, sheet) {
  const gap = element.getBoundingClientRect().bottom - sheet.getBoundingClientRect().top + 24;
  if (gap > 0) window.scrollBy({ top: gap, behavior: "instant" });
}

// ---- the panel --------------------------------------------------------------------------------------------------

function showNothing() {
  reader.elements[reader.shown]?.classList.remove("shown");
  reader.shown = -1;
  byId("panel").classList.remove("open");
  byId("panel").replaceChildren(hint(
    "Point at a token, tap it, or use the arrow keys: this panel shows what the teacher expected there. Enter or a click keeps the token, Escape releases it."));
}

function showCell(index) {
  reader.elements[reader.shown]?.classList.remove("shown");
  reader.shown = index;
  reader.elements[index].classList.add("shown");
  const window = REPORT.windows[reader.window], cell = reader.cells[index];
  byId("panel").classList.add("open");
  byId("panel").replaceChildren(panelHead(window, cell), ...(cell.target < 0 ? [hint("A part begins here: nothing before it predicts its first token.")] : targetView(window, cell)));
}

const hint = (text) => make("p", { class: "hint" }, text);

function panelHead(window, cell) {
  const close = make("button", { type: "button", class: "quiet close", "aria-label": "Close", onclick: () => { pin(-1); showNothing(); } }, "×");
  const piece = cell.row < 0 ? null : window.token[cell.row];
  const title = piece === null ? "after the last token" : named(cell.text);
  const place = piece === null ? "" : `id ${REPORT.pieces.id[piece]}, row ${cell.row}`;
  return make("div", { class: "panel-head" }, make("b", { class: "piece" }, title), make("span", { class: "basis" }, place), close);
}

/** The distribution of a row: its most probable ids, the rest of the head, and the tail; they sum to one. */
function targetView(window, cell) {
  const row = cell.target, tail = window.tail[row];
  if (!known(tail)) return [hint(`No target: a row of kind ${window.kind[row] ?? "train"}.`)];
  const actual = cell.row < 0 ? null : window.token[cell.row];
  const top = pairs(window.top[row]), listed = top.reduce((sum, [, p]) => sum + p, 0);
  const student = window.student?.p[row], unlisted = window.width[row] - top.length;
  const rest = unlisted > 0 ? Math.max(0, 1 - tail - listed) : 0;
  // Bars are relative to the longest one, since many distributions are flat; the numbers are absolute.
  const came = actual !== null && known(window.student?.loss[row]) ? Math.exp(-window.student.loss[row]) : 0;
  const longest = Math.max(tail, rest, came, ...top.map(([, p]) => p), ...(student ?? []).filter(known));
  const rows = top.map(([piece, p], i) => barRow(named(pieceText(piece)), p, { longest, actual: piece === actual, student: student?.[i], data: REPORT.pieces.id[piece] }));
  if (actual !== null && known(window.loss[row]) && !top.some(([piece]) => piece === actual)) {
    const loss = window.student?.loss[row];
    rows.push(barRow(named(cell.text), Math.exp(-window.loss[row]), { longest, actual: true, note: "not among these", student: known(loss) ? Math.exp(-loss) : undefined }));
  }
  if (unlisted > 0) rows.push(barRow(`head: ${count(unlisted)} more`, rest, { longest, kind: "rest" }));
  rows.push(barRow("tail: all others", tail, { longest, kind: "tail" }));
  return [
    make("table", { class: "expected" }, make("caption", { class: "visually-hidden" }, "What the teacher expected"), make("tbody", {}, rows)),
    student ? make("p", { class: "basis key" }, make("i", { class: "swatch teacher" }), "teacher ", make("i", { class: "swatch student" }), "student") : null,
    drawnView(window, row),
    facts(window, row),
  ].filter(Boolean);
}

const pairs = (flat) => Array.from({ length: Math.floor(flat.length / 2) }, (_, i) => [flat[2 * i], flat[2 * i + 1]]);

function barRow(label, p, { longest, kind = "head", actual = false, note = "", student, data } = {}) {
  const bars = make("td", { class: "bars" }, meter(p / longest, actual ? "actual" : kind), known(student) ? meter(student / longest, "student") : null);
  const name = make("th", { scope: "row", class: kind === "head" ? "piece" : "" }, label);
  if (actual) name.append(make("span", { class: "came" }, note ? `came next, ${note}` : "came next"));
  return make("tr", { class: actual ? "is-actual" : null, "data-id": data, "data-p": p }, name, bars,
    make("td", { class: "number" }, percent(p), known(student) ? make("small", {}, percent(student)) : null));
}

function drawnView(window, row) {
  const flat = window.drawn[row] ?? [];
  const all = flat[flat.length - 1];
  if (!all) return null;
  const text = pairs(flat.slice(0, -1)).map(([piece, times]) => `${named(pieceText(piece))} ×${times}`).join("  ");
  return make("p", { class: "drawn" }, make("span", { class: "basis" }, `drawn from the tail, ${count(all)} draws: `), make("span", { class: "piece" }, text));
}

function facts(window, row) {
  const student = window.student;
  const found = [
    ["entropy", nats(window.entropy[row])],
    ["teacher loss", known(window.loss[row]) ? `${nats(window.loss[row])} (p ${percent(Math.exp(-window.loss[row]))})` : "no next token here"],
    ["head", `${count(window.width[row])} ids, ${percent(1 - window.tail[row])} of the mass`],
    ...(student ? [["student’s KL", nats(student.kl[row])], ["student’s loss", nats(student.loss[row])]] : []),
  ];
  return make("dl", { class: "facts" }, found.map(([name, value]) => make("div", {}, make("dt", {}, name), make("dd", {}, value))));
}

// ---- search -----------------------------------------------------------------------------------------------------

const MAX_HITS = 50;

/** Places where the sampled text contains the query, ignoring case: {window, first, last}, in cells. */
function findAll(query) {
  const wanted = query.toLowerCase(), found = [];
  REPORT.windows.forEach((window, index) => {
    const cells = cellsOf(window), ends = [];
    let text = "";
    for (const cell of cells) { text += cell.row < 0 ? "\u0000" : cell.text.toLowerCase(); ends.push(text.length); }
    for (let at = text.indexOf(wanted); at >= 0; at = text.indexOf(wanted, at + wanted.length)) {
      const first = ends.findIndex((end) => end > at), last = ends.findIndex((end) => end >= at + wanted.length);
      found.push({ window: index, first, last });
    }
  });
  return found;
}

function search(query) {
  const found = query.trim() ? findAll(query) : [];
  reader.hits = found;
  const list = byId("hits");
  list.hidden = !query.trim();
  const more = found.length > MAX_HITS ? `, the first ${MAX_HITS} listed` : "";
  list.replaceChildren(
    make("p", { class: "basis", role: "status" }, `${count(found.length)} in the sampled text${more}`),
    make("ol", {}, found.slice(0, MAX_HITS).map((hit) => make("li", {}, hitButton(hit)))));
  markHits();
}

function hitButton(hit) {
  const window = REPORT.windows[hit.window], cells = cellsOf(window);
  const text = (from, to) => cells.slice(Math.max(0, from), to).map((cell) => named(cell.text === "" ? " " : cell.text).replaceAll("␣", " ")).join("");
  return make("button", { type: "button", class: "hit", onclick: () => { showWindow(hit.window); rove(hit.first); pin(hit.first); } },
    make("span", { class: "basis" }, `${count(window.window)} `),
    text(hit.first - 10, hit.first), make("mark", {}, text(hit.first, hit.last + 1)), text(hit.last + 1, hit.last + 11));
}

function markHits() {
  for (const element of reader.elements) element.classList.remove("hit-token");
  for (const hit of reader.hits.filter((one) => one.window === reader.window))
    for (let i = hit.first; i <= hit.last; i += 1) reader.elements[i].classList.add("hit-token");
}
