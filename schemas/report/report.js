// The page: summary, distributions, sources and the run; the last lines draw it.

const data = REPORT.dataset;

function drawSummary() {
  const { teacher, tokenizer, total, documents } = data;
  const name = data.dataset.replace(/\/+$/, "").split("/").pop();
  byId("name").textContent = readable(name);
  byId("state").textContent = data.complete ? "complete" : `partial: ${count(data.missing_units)} units missing`;
  byId("state").classList.toggle("warning", !data.complete);
  byId("what").textContent = `${readable(teacher?.name ?? "no teacher")} annotated ${count(total.tokens)} tokens. This is what it expected at each of them.`;
  const loss = total.teacher_loss_nats;
  const figures = [
    ["tokens", count(total.tokens), `${count(total.windows)} windows`],
    ["bytes a token", fixed(total.bytes_per_token, 1), `${bytes(total.bytes)} in ${count(total.shards)} shards`],
    ["teacher loss", fixed(loss), `nats; perplexity ${known(loss) ? fixed(Math.exp(loss), 1) : "–"}`],
    ["top-1 agreement", percent(total.top1_agreement), `of ${count(total.labels)} labels`],
    ["entropy", fixed(total.entropy_nats.mean), `nats; median ${fixed(total.entropy_nats.p50)}`],
    ["head width", fixed(total.head_width.mean, 1), `ids; median ${count(total.head_width.p50)}`],
    ["tail mass", percent(total.tail_mass.mean), `median ${percent(total.tail_mass.p50)}`],
    ["documents", count(documents.annotated), `${count(documents.rejected)} rejected of ${count(documents.in)}`],
  ];
  byId("figures").append(...figures.map(([title, value, note]) =>
    make("div", {}, make("dt", {}, title), make("dd", {}, make("b", {}, value), make("small", {}, note)))));
  const identity = [
    ["teacher", [teacher?.name, teacher?.architecture, teacher?.num_parameters && `${short(teacher.num_parameters)} parameters`, teacher?.dtype]],
    ["tokenizer", [tokenizer.name, tokenizer.vocab_size && `${count(tokenizer.vocab_size)} ids`]],
    ["head", [REPORT.scheme_words]],
    ["licenses", [`teacher ${data.licences.teacher ?? "not stated"}`, `corpus ${data.licences.corpus ?? "not stated"}`]],
    ["dataset", [data.dataset, data.snapshot ? `snapshot ${data.snapshot}` : "no snapshot yet", `windows of up to ${count(data.window_tokens)}`]],
  ];
  byId("identity").append(...identity.map(([title, facts]) =>
    make("div", {}, make("dt", {}, title), make("dd", {}, readable(facts.filter(Boolean).join(" · "))))));
  const { sample, windows } = REPORT;
  const reasons = [...new Set(windows.map((window) => window.reason))].filter((reason) => reason !== "random").map(words);
  const drawn = `a random sample with seed ${sample.seed}`;
  byId("sample-basis").textContent =
    `${count(sample.windows)} of ${count(sample.windows_in_dataset)} windows (${count(sample.tokens)} tokens): ` +
    (reasons.length ? `outliers (${reasons.join(", ")}) and ${drawn}.` : `${drawn}.`);
}

// ---- distributions ----------------------------------------------------------------------------------------------

const EXACT = "exact, every row";
const binned = (histogram) => `all ${count(histogram.count)} rows; quantiles to 1/${histogram.bins_per_nat} nat`;

/** Bins of 1/bins_per_nat nat, merged to about 48 bars. */
function natBins(histogram) {
  const at = Object.keys(histogram.counts).map(Number);
  const last = Math.max(...at, 0) + 1, per = Math.max(1, Math.ceil(last / 48));
  const sums = new Array(Math.ceil(last / per)).fill(0);
  for (const [bin, n] of Object.entries(histogram.counts)) sums[Math.floor(Number(bin) / per)] += n;
  return sums.map((n, i) => ({ from: (i * per) / histogram.bins_per_nat, to: ((i + 1) * per) / histogram.bins_per_nat, n }));
}

const quantiles = (of, show) => [["mean", of.mean], ["p10", of.p10], ["median", of.p50], ["p90", of.p90], ["p99", of.p99]]
  .map(([name, value]) => `${name}\u00a0${show(value).replaceAll(" ", "\u00a0")}`).join(" · ");
const rowsLabel = (n, all) => `${percent(n / all)} of rows (${count(n)})`;

function natFigure(title, histogram, of, logY) {
  const points = natBins(histogram).map(({ from, to, n }) => ({ x0: from, x1: to, y: n, label: `${fixed(from)}–${fixed(to)} nats: ${rowsLabel(n, histogram.count)}` }));
  const ticks = roundTicks(points.at(-1)?.x1 ?? 1, 6).map((tick) => [tick, short(tick)]);
  return histogram.count ? figure({ title, basis: binned(histogram), summary: quantiles(of, fixed), points, marks: "bars", yTitle: "rows", xTitle: "nats", xTicks: ticks, logY }) : null;
}

const superscript = (power) => String(power).replace(/\d/g, (digit) => "⁰¹²³⁴⁵⁶⁷⁸⁹"[digit]);

function tailFigure(histogram, of, logY) {
  if (!histogram.count) return null;
  const points = natBins(histogram).map(({ from, to, n }) => ({
    x0: -to, x1: -from, y: n, label: `mass ${percent(Math.exp(-to))} to ${percent(Math.exp(-from))}: ${rowsLabel(n, histogram.count)}` })).reverse();
  const min = points[0].x0, ticks = [];
  for (let power = 0; -power * Math.LN10 >= min; power += -min > 14 ? 2 : 1) ticks.push([-power * Math.LN10, power ? `10⁻${superscript(power)}` : "1"]);
  const none = histogram.infinite ? `; ${count(histogram.infinite)} rows have none` : "";
  return figure({ title: "Tail mass", basis: `${binned(histogram)}${none}`, summary: quantiles(of, percent), points, marks: "bars", yTitle: "rows", xTitle: "mass outside the head, logarithmic", xTicks: ticks, logY });
}

function widthFigure(histogram, of, logY) {
  const counts = Object.entries(histogram.counts).map(([width, n]) => [Number(width), n]);
  if (!counts.length) return null;
  const widths = counts.map(([width]) => width), min = Math.min(1, ...widths), max = Math.max(...widths);
  const per = Math.max(1, Math.ceil((max - min + 1) / 64));
  const all = counts.reduce((sum, [, n]) => sum + n, 0);
  const sums = new Array(Math.floor((max - min) / per) + 1).fill(0);
  for (const [width, n] of counts) sums[Math.floor((width - min) / per)] += n;
  const points = sums.map((n, i) => {
    const from = min + i * per, to = Math.min(max, from + per - 1);
    return { x0: from - 0.5, x1: to + 0.5, y: n, label: `${from === to ? from : `${from}–${to}`} ids: ${rowsLabel(n, all)}` };
  });
  const ticks = roundTicks(max, 5).filter((tick) => tick >= min).map((tick) => [tick, String(tick)]);
  return figure({ title: "Head width", basis: EXACT, summary: quantiles(of, (v) => fixed(v, known(v) && Number.isInteger(v) ? 0 : 1)), points, marks: "bars", yTitle: "rows", xTitle: "stored ids a row", xTicks: ticks, logY });
}

/** Values at a few points of a logarithmic axis. */
function curveFigure(title, basis, values, { xTitle, label, yTitle, yText, yTo, logY }) {
  const entries = Object.entries(values).map(([x, y]) => [Number(x), y]);
  if (entries.length < 2) return null;
  const points = entries.map(([x, y]) => ({ x0: x, x1: x, y, label: label(x, y) }));
  return figure({ title, basis, summary: points.at(-1).label, points, marks: "line", logX: true, xTitle, yTitle, yText, yTo, logY,
    xTicks: entries.filter((_, i) => entries.length < 9 || i % 2 === 0).map(([x]) => [x, String(x)]) });
}

function bytesFigure(part) {
  const columns = Object.entries(part.bytes_per_token_by_column).sort((a, b) => b[1] - a[1]);
  if (!columns.length) return null;
  const max = columns[0][1];
  const rows = columns.map(([name, size]) => make("tr", {}, make("th", { scope: "row" }, name), make("td", { class: "bars" }, meter(size / max, "head")), make("td", { class: "number" }, fixed(size, 1))));
  const expected = data.cost?.expected_bytes_per_token;
  return make("figure", { class: "plot" },
    make("figcaption", {}, make("h3", {}, "Bytes a token"), make("span", { class: "basis" }, "exact, compressed")),
    make("p", { class: "readout" }, `${fixed(part.bytes_per_token, 1)} in total${known(expected) ? ` · ${fixed(expected, 1)} expected (a fit)` : ""}`),
    make("table", { class: "expected" }, make("tbody", {}, rows)));
}

function drawDistributions() {
  const part = byId("split").value === "all" ? data.total : data.splits[byId("split").value];
  const logY = byId("log-counts").checked, { histograms, wide } = part;
  const sampled = `sampled: ${count(wide.rows)} rows, all ids`;
  byId("plots").replaceChildren(...[
    natFigure("Entropy", histograms.entropy, part.entropy_nats, logY),
    natFigure("Teacher loss", histograms.teacher_loss, part.loss_nats, logY),
    widthFigure(histograms.head_width, part.head_width, logY),
    tailFigure(histograms.tail_neg_log_mass, part.tail_mass, logY),
    curveFigure("Mass of the k largest ids", sampled, wide.mass_of_top_k,
      { xTitle: "k, logarithmic", label: (k, mass) => `the ${k} largest hold ${percent(mass)}`, yTitle: "mass", yText: (v) => `${Math.round(100 * v)} %`, yTo: 1.02 }),
    curveFigure("Different ids in N draws", sampled, wide.unique_ids_of_n_draws,
      { xTitle: "N draws, logarithmic", label: (n, ids) => `${n} draws give ${fixed(ids, 1)} different ids`, yTitle: "ids", logY: true }),
    bytesFigure(part),
  ].filter(Boolean));
}

function setUpDistributions() {
  byId("split").append(make("option", { value: "all" }, "all"), ...Object.keys(data.splits).map((split) => make("option", { value: split }, split)));
  byId("split").addEventListener("change", drawDistributions);
  byId("log-counts").addEventListener("change", drawDistributions);
  drawDistributions();
}

// ---- sources ----------------------------------------------------------------------------------------------------

const SOURCE_COLUMNS = [
  ["source", (one) => one.name, (one) => readable(one.name)],
  ["tokens", (one) => one.tokens, (one) => count(one.tokens)],
  ["documents", (one) => one.documents, (one) => count(one.documents)],
  ["loss", (one) => one.teacher_loss_nats, (one) => fixed(one.teacher_loss_nats)],
  ["top-1", (one) => one.top1_agreement, (one) => percent(one.top1_agreement)],
  ["entropy", (one) => one.entropy_nats.mean, (one) => fixed(one.entropy_nats.mean)],
  ["head", (one) => one.head_width.mean, (one) => fixed(one.head_width.mean, 1)],
  ["tail", (one) => one.tail_mass.mean, (one) => percent(one.tail_mass.mean)],
  ["size ~", (one) => one.estimated_bytes, (one) => bytes(one.estimated_bytes)],
];

function drawSources(sorted = 1, falling = true) {
  const sources = Object.entries(data.sources).map(([name, one]) => ({ name, ...one }));
  const of = SOURCE_COLUMNS[sorted][1];
  const compare = (a, b) => (typeof of(a) === "string" ? of(a).localeCompare(of(b)) : (of(a) ?? -1) - (of(b) ?? -1));
  sources.sort((a, b) => (falling ? -compare(a, b) : compare(a, b)));
  const max = Math.max(...sources.map((one) => one.tokens), 1);
  const heads = SOURCE_COLUMNS.map(([title], i) =>
    make("th", { scope: "col", class: i ? "number" : null, "aria-sort": i === sorted ? (falling ? "descending" : "ascending") : null },
      make("button", { type: "button", class: "quiet", onclick: () => { drawSources(i, i === sorted ? !falling : i > 0); byId("source-table").querySelectorAll("th button")[i].focus(); } },
        title, make("span", { "aria-hidden": "true" }, i === sorted ? (falling ? " ↓" : " ↑") : ""))));
  const rows = sources.map((one) => make("tr", {}, SOURCE_COLUMNS.map(([, , show], i) =>
    i ? make("td", { class: "number" }, show(one)) : make("th", { scope: "row" }, show(one), meter(one.tokens / max, "head")))));
  byId("source-table").replaceChildren(make("thead", {}, make("tr", {}, heads)), make("tbody", {}, rows));
}

function drawDocuments() {
  const { documents } = data;
  const reasons = [["rejected", documents.rejected_by_reason], ["removed", documents.removed_by_reason]]
    .flatMap(([what, found]) => Object.entries(found).map(([reason, n]) => `${what}: ${readable(words(reason))} ${count(n)}`));
  byId("documents").append(make("p", { class: "basis" }, [`${count(documents.in)} documents in, ${count(documents.annotated)} annotated`, ...reasons].join(" · ")));
}

// ---- the run ----------------------------------------------------------------------------------------------------

const CURVE_TITLES = { loss: "Training loss", kl_nats: "KL to the teacher", learning_rate: "Learning rate", grad_norm: "Gradient norm", tokens_per_second: "Tokens a second", cross_entropy_nats: "Cross-entropy with the text" };
const CURVE_UNITS = { loss: "nats", kl_nats: "nats" };

function drawRun() {
  const { run } = REPORT;
  byId("run").hidden = byId("run-link").hidden = false;
  const per = run.steps_per_point > 1 ? `; each point is the mean of ${run.steps_per_point} steps` : "";
  byId("run-basis").textContent = `${readable(run.run)}: ${count(run.steps)} steps, from metrics.jsonl${per}.`;
  const { step, values } = run.curves;
  if (step.length > 1) byId("curves").append(...Object.entries(values).filter(([, ys]) => new Set(ys.filter(known)).size > 1).map(([name, ys]) => runFigure(name, step, ys)));
  if (run.held_out) drawHeldOut(run.held_out);
}

/** Four digits; very small numbers in powers of ten. */
function significant(value) {
  if (!known(value)) return "–";
  return value !== 0 && Math.abs(value) < 1e-3 ? value.toExponential(2) : value.toLocaleString("en-US", { maximumSignificantDigits: 4 });
}

function runFigure(name, step, ys) {
  const unit = CURVE_UNITS[name] ? ` ${CURVE_UNITS[name]}` : "", show = significant;
  const points = step.map((x, i) => ({ x0: x, x1: x, y: ys[i], label: `step ${count(x)}: ${show(ys[i])}${unit}` }));
  const end = REPORT.run.held_out?.after;
  const level = name !== "kl_nats" || !known(end?.kl_nats) ? null : { y: end.kl_nats, text: `held out, after: ${show(end.kl_nats)}` };
  return figure({ title: CURVE_TITLES[name] ?? words(name), basis: REPORT.run.steps_per_point > 1 ? "means of steps" : "every logged step", summary: `last ${show(ys.findLast(known))}${unit}`, points, marks: "line", level,
    yTitle: CURVE_UNITS[name], xTitle: "step", xTicks: roundTicks(step.at(-1), 5).filter((tick) => tick >= step[0]).map((tick) => [tick, short(tick)]) });
}

const HELD_OUT_TITLES = { kl_nats: "KL to the teacher, nats (a lower bound)", full_kl_nats: "full KL to the teacher, nats", loss_nats: "next-token loss, nats", teacher_loss_nats: "the teacher’s own loss, nats", top1_agreement: "top-1 agreement with the text", teacher_agreement: "top-1 agreement with the teacher", calibration_error: "calibration error" };

function drawHeldOut({ before, after }) {
  const names = Object.keys(after).filter((name) => known(after[name]) && !name.startsWith("num_"));
  byId("held-out").append(
    make("caption", {}, `Held-out evaluation, ${count(after.num_targets)} targets in ${count(after.num_windows)} windows`),
    make("thead", {}, make("tr", {}, ["", "before", "after"].map((title, i) => make("th", { scope: "col", class: i ? "number" : null }, title)))),
    make("tbody", {}, names.map((name) => make("tr", {}, make("th", { scope: "row" }, HELD_OUT_TITLES[name] ?? words(name)), [before, after].map((one) => make("td", { class: "number" }, significant(one[name])))))));
}

// ---- the page ---------------------------------------------------------------------------------------------------

/** The theme button: system setting, light, dark. */
function setUpTheme() {
  const themes = ["auto", "light", "dark"], button = byId("theme");
  let chosen = 0;
  const show = () => {
    document.documentElement.dataset.theme = themes[chosen];
    button.replaceChildren("◐○●"[chosen], make("span", {}, ` ${themes[chosen]}`));
    button.setAttribute("aria-label", `Colors: ${themes[chosen]}`);
  };
  button.addEventListener("click", () => { chosen = (chosen + 1) % themes.length; show(); });
  show();
}

function drawAccuracy() {
  byId("accuracy").append(
    make("h2", {}, "How exact the figures are"),
    make("dl", { class: "identity" }, Object.entries({ ...data.accuracy, "KL of a student": "over the stored buckets: a lower bound of the KL over the whole vocabulary" }).map(([kind, what]) =>
      make("div", {}, make("dt", {}, kind), make("dd", {}, what)))),
    make("p", { class: "basis" }, `${REPORT.schema}. Made by logitcask; this file needs no network and no server.`));
}

setUpTheme();
drawSummary();
setUpReader();
setUpDistributions();
drawSources();
drawDocuments();
if (REPORT.run) drawRun();
drawAccuracy();
document.documentElement.dataset.ready = "yes";
