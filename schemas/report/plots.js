// Plots as small SVG images, without a plotting library: one would be larger than the whole page. A plot is bars or a line
// over points {x0, x1, y, label}. The label of a point is shown above the plot on hover, on touch, and with the arrow keys
// once the plot has the focus.

const PLOT = { width: 380, height: 178, left: 44, right: 10, top: 18, bottom: 34 };

/** About `wanted` round numbers from 0 to `max`. */
function roundTicks(max, wanted = 4) {
  if (!(max > 0)) return [0];
  const rough = max / wanted;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 2.5, 5, 10].map((m) => m * power).find((one) => one >= rough * 0.999);
  const ticks = [];
  for (let tick = 0; tick <= max * 1.001; tick += step) ticks.push(Number(tick.toPrecision(12)));
  return ticks;
}

/** About six powers of ten between two numbers. */
function powerTicks(min, max) {
  const low = Math.ceil(Math.log10(min) - 1e-9), high = Math.floor(Math.log10(max) + 1e-9);
  const step = Math.max(1, Math.ceil((high - low) / 5));
  const ticks = [];
  for (let power = low; power <= high; power += step) ticks.push(10 ** power);
  return ticks;
}

const short = (value) =>
  value >= 1e6 ? `${Number((value / 1e6).toPrecision(3))}M`
    : value >= 1e4 ? `${Number((value / 1e3).toPrecision(3))}k`
      : value !== 0 && Math.abs(value) < 1e-3 ? Number(value.toPrecision(3)).toExponential()
        : String(Number(value.toPrecision(3)));

/** A linear or logarithmic scale from the values min..max to the pixels from..to. */
function scale(min, max, from, to, isLog) {
  const map = isLog ? (v) => Math.log10(v) : (v) => v;
  const low = map(min), span = map(max) - low || 1;
  return (value) => from + ((map(value) - low) / span) * (to - from);
}

/**
 * A figure with a plot.
 * @param {object} plot
 *   title, basis (how exact the numbers are), summary (shown while no point is chosen),
 *   points [{x0, x1, y, label}], marks "bars" or "line", xTitle, yTitle, xTicks [[value, text]], logX, logY, yFrom (minimum y),
 *   level {y, text}: a line to compare with.
 */
function figure(plot) {
  const readout = make("output", { class: "readout" }, plot.summary);
  const svg = make("svg", {
    viewBox: `0 0 ${PLOT.width} ${PLOT.height}`, tabindex: "0", role: "img",
    "aria-label": `${plot.title}. ${plot.summary}. Arrow keys read the values.`,
  });
  const points = plot.points;
  const xs = points.flatMap((p) => [p.x0, p.x1]);
  const x = scale(Math.min(...xs), Math.max(...xs), PLOT.left, PLOT.width - PLOT.right, plot.logX);
  const { y, ticks, floor } = verticalScale(plot);
  drawAxes(svg, plot, x, y, ticks);
  const shown = plot.marks === "bars" ? drawBars(svg, points, x, y, floor) : drawLine(svg, points, x, y);
  if (plot.level) drawLevel(svg, plot.level, y);
  attachReading(svg, readout, plot, shown, points.map((p) => (x(p.x0) + x(p.x1)) / 2));
  return make("figure", { class: "plot" },
    make("figcaption", {}, make("h3", {}, plot.title), make("span", { class: "basis" }, plot.basis)),
    readout, svg, numbers(plot));
}

function verticalScale(plot) {
  const values = [...plot.points.map((p) => p.y), ...(plot.level ? [plot.level.y] : [])].filter((v) => known(v) && (!plot.logY || v > 0));
  const max = Math.max(...values, plot.logY ? 1e-12 : 0);
  const min = plot.logY ? Math.min(...values, max) * 0.8 : plot.yFrom ?? 0;
  const top = plot.yTo ?? (max > min ? max * (plot.logY ? 1.3 : 1.05) : min + 1);
  const ticks = plot.logY ? powerTicks(min, top) : roundTicks(top).filter((tick) => tick >= min);
  return { y: scale(min, top, PLOT.height - PLOT.bottom, PLOT.top, plot.logY), ticks, floor: min };
}

function drawAxes(svg, plot, x, y, ticks) {
  const bottom = PLOT.height - PLOT.bottom;
  for (const tick of ticks) {
    svg.append(make("line", { class: "grid", x1: PLOT.left, x2: PLOT.width - PLOT.right, y1: y(tick), y2: y(tick) }));
    svg.append(make("text", { x: PLOT.left - 6, y: y(tick) + 3.5, "text-anchor": "end" }, plot.yText ? plot.yText(tick) : short(tick)));
  }
  for (const [value, text] of plot.xTicks) {
    svg.append(make("line", { class: "axis", x1: x(value), x2: x(value), y1: bottom, y2: bottom + 4 }));
    svg.append(make("text", { x: x(value), y: bottom + 15, "text-anchor": "middle" }, text));
  }
  svg.append(make("line", { class: "axis", x1: PLOT.left, x2: PLOT.width - PLOT.right, y1: bottom, y2: bottom }));
  if (plot.yTitle) svg.append(make("text", { x: PLOT.left - 6, y: 9, "text-anchor": "end" }, plot.yTitle));
  svg.append(make("text", { class: "axis-title", x: PLOT.width - PLOT.right, y: PLOT.height - 4, "text-anchor": "end" }, plot.xTitle));
}

function drawBars(svg, points, x, y, floor) {
  const bottom = PLOT.height - PLOT.bottom;
  return points.map((point) => {
    const left = x(point.x0), right = x(point.x1), height = point.y > floor ? Math.max(bottom - y(point.y), 0.75) : 0;
    const gap = right - left > 4 ? 1 : 0.2;
    const bar = make("rect", { class: "mark", x: Math.min(left, right) + gap / 2, y: bottom - height, width: Math.max(Math.abs(right - left) - gap, 0.4), height });
    svg.append(bar);
    return bar;
  });
}

function drawLine(svg, points, x, y) {
  const placed = points.map((p) => (known(p.y) ? [(x(p.x0) + x(p.x1)) / 2, y(p.y)] : null));
  // An unknown value leaves a gap in the line.
  const path = placed.map((at, i) => (at ? `${i && placed[i - 1] ? "L" : "M"}${at[0].toFixed(1)},${at[1].toFixed(1)}` : "")).join("");
  svg.append(make("path", { class: "curve", d: path }));
  const dots = points.length <= 24;
  return placed.map((at) => {
    const dot = make("circle", { class: dots ? "dot" : "dot hidden", r: 3, cx: at ? at[0] : 0, cy: at ? at[1] : -10 });
    svg.append(dot);
    return dot;
  });
}

function drawLevel(svg, level, y) {
  svg.append(make("line", { class: "level", x1: PLOT.left, x2: PLOT.width - PLOT.right, y1: y(level.y), y2: y(level.y) }));
  svg.append(make("text", { class: "level-text", x: PLOT.width - PLOT.right - 2, y: 9, "text-anchor": "end" }, level.text));
}

/** Pointer and keys choose a point; the readout shows its label. */
function attachReading(svg, readout, plot, shown, places) {
  let chosen = -1;
  const choose = (index) => {
    if (shown[chosen]) shown[chosen].classList.remove("chosen");
    chosen = index;
    if (shown[chosen]) shown[chosen].classList.add("chosen");
    readout.textContent = plot.points[chosen]?.label ?? plot.summary;
    readout.classList.toggle("reading", chosen >= 0);
  };
  const nearest = (event) => {
    const box = svg.getBoundingClientRect();
    const at = ((event.clientX - box.left) / box.width) * PLOT.width;
    choose(places.reduce((best, place, i) => (Math.abs(place - at) < Math.abs(places[best] - at) ? i : best), 0));
  };
  svg.addEventListener("pointermove", nearest);
  svg.addEventListener("pointerdown", nearest);
  svg.addEventListener("pointerleave", (event) => { if (event.pointerType !== "touch") choose(-1); });
  svg.addEventListener("blur", () => choose(-1));
  svg.addEventListener("keydown", (event) => {
    const last = places.length - 1;
    const moves = { ArrowRight: Math.min(last, chosen + 1), ArrowLeft: Math.max(0, chosen - 1), Home: 0, End: last, Escape: -1 };
    if (!(event.key in moves) || event.altKey || event.ctrlKey || event.metaKey) return;
    event.preventDefault();
    choose(moves[event.key]);
  });
}

/** The points as a list of numbers. */
function numbers(plot) {
  const list = make("ul");
  const details = make("details", {}, make("summary", {}, "Numbers"), list);
  details.addEventListener("toggle", () => {
    if (!list.firstChild) list.append(...plot.points.filter((p) => known(p.y)).map((p) => make("li", {}, p.label)));
  });
  return details;
}
