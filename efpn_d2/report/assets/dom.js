// Elements are made by their names and texts, never from HTML: names of files and classes stay text.

const SVG = "http://www.w3.org/2000/svg";

function make(parent, name, attributes = {}, text = null) {
  const svg = parent.namespaceURI === SVG || name === "svg";
  const node = svg ? document.createElementNS(SVG, name) : document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (value !== null && value !== undefined) node.setAttribute(key, value);
  }
  if (text !== null) node.textContent = text;
  parent.append(node);
  return node;
}

function byId(id) {
  return document.getElementById(id);
}

function fillSelect(select, options) {
  select.replaceChildren();
  for (const [value, text] of options) make(select, "option", { value }, text);
}

function key(parent, text, color, dashed = false) {
  const node = make(parent, "span", { class: dashed ? "key dashed" : "key" }, text);
  node.style.setProperty("--own", color);
  return node;
}

function percent(value, digits = 1) {
  return value === null || value === undefined ? "n/a" : (100 * value).toFixed(digits);
}

function plural(count, one, many = one + "s") {
  return `${count.toLocaleString("en")} ${count === 1 ? one : many}`;
}

const report = JSON.parse(byId("report-data").textContent);
const comparing = report.runs.length > 1;

const KIND = Object.fromEntries(report.kinds.map((name, number) => [name, number]));
const ONLY_HERE = "only here"; // objects that the other run did not find
const SHOWN_KINDS = report.kinds.filter((name) => name !== "ignored" && name !== ONLY_HERE);
const ERROR_KINDS = SHOWN_KINDS.filter((name) => name !== "found");
const kindColor = (name) => `var(--${name})`;
const RUN_COLORS = ["var(--first)", "var(--second)"];
const LINE_COLORS = ["--first", "--second", "--third", "--fourth", "--fifth", "--sixth"].map(
  (name) => `var(${name})`,
);
