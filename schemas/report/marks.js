"use strict";
// Builds elements and formats numbers and text. Text of the corpus becomes text nodes: nothing here parses markup.

const REPORT = JSON.parse(document.getElementById("data").textContent);
const SVG_TAGS = new Set(["svg", "g", "rect", "line", "path", "text", "circle"]);

/** An element with attributes, listeners (`onclick`) and children; null children are left out. */
function make(tag, attributes = {}, ...children) {
  const element = SVG_TAGS.has(tag)
    ? document.createElementNS("http://www.w3.org/2000/svg", tag)
    : document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (typeof value === "function") element.addEventListener(name.slice(2), value);
    else if (value !== null && value !== undefined && value !== false) element.setAttribute(name, value);
  }
  element.append(...children.flat().filter((child) => child !== null && child !== undefined));
  return element;
}

const byId = (id) => document.getElementById(id);

/** A bar whose width is a share of its container; set through the style object, which the security policy allows. */
function meter(share, kind) {
  const bar = make("span", { class: `meter ${kind}`, "aria-hidden": "true" });
  bar.style.setProperty("--share", `${Math.max(0, Math.min(1, share)) * 100}%`);
  return bar;
}

const known = (value) => value !== null && value !== undefined;
const count = (value) => (known(value) ? Math.round(value).toLocaleString("en-US") : "–");
const fixed = (value, digits = 2) =>
  known(value) ? value.toLocaleString("en-US", { minimumFractionDigits: digits, maximumFractionDigits: digits }) : "–";
const nats = (value) => (known(value) ? `${fixed(value)} nats` : "–");

/** A probability in percent; smaller ones get more digits. */
function percent(value) {
  if (!known(value)) return "–";
  if (value === 0) return "0 %";
  const hundred = 100 * value;
  if (hundred < 0.001) return "< 0.001 %";
  return `${hundred >= 99.95 ? hundred.toFixed(2) : hundred >= 10 ? hundred.toFixed(1) : hundred >= 0.1 ? hundred.toFixed(2) : hundred.toFixed(3)} %`;
}

function bytes(value) {
  if (!known(value)) return "–";
  const units = ["bytes", "kB", "MB", "GB", "TB", "PB"];
  let unit = 0;
  for (; value >= 999.5 && unit < units.length - 1; unit += 1) value /= 1000;
  return unit ? `${Number(value.toPrecision(3))} ${units[unit]}` : `${Math.round(value)} bytes`;
}

/** "highest_loss" as words. */
const words = (name) => name.replaceAll("_", " ");

// Characters that are invisible or reorder text; they are shown as escapes.
const UNSEEN = /[\u0000-\u0008\u000b-\u001f\u007f-\u009f\p{Cf}\u2028\u2029\u034f\u115f\u1160\u3164\uffa0]/gu;
const escaped = (char) => `\\u${char.codePointAt(0).toString(16).padStart(4, "0")}`;

/** Text with marked line ends and escaped invisible characters. */
const readable = (text) => text.replace(UNSEEN, escaped).replaceAll("\n", "↵\n");

/** A piece on one line, with marked line ends and marked spaces at its ends. */
function named(text) {
  if (text === "") return "∅";
  return text.replace(UNSEEN, escaped).replaceAll("\n", "↵").replaceAll("\t", "⇥").replace(/^ +| +$/g, (s) => "␣".repeat(s.length));
}
