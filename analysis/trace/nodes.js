"use strict";

// Nodes of the page: options, texts, diffs, and what keeps scroll and focus in their place.

/** An element with attributes and children; texts become text nodes, so no text of a model is ever read as markup. */
function el(tag, attributes = {}, ...children) {
  const out = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) out.addEventListener(name.slice(2), value);
    else if (value !== undefined && value !== null && value !== false) out.setAttribute(name, value === true ? "" : value);
  }
  out.append(...children.filter((child) => child !== null));
  return out;
}

/** A function row -> value of one column (see analysis/trace/columns.py). */
function reader(table, name) {
  const column = table.columns[name];
  if (!column) return () => null;
  if (column.values) return (i) => column.values[i];
  return (i) => (column.at[i] < 0 ? null : column.pool[column.at[i]]);
}

/** A value as it is read: numbers as recorded, null blank, lists joined. */
function shown(value) {
  if (value === null || value === undefined) return "";
  if (typeof value === "number") return Number.isInteger(value) ? String(value) : String(Number(value.toPrecision(6)));
  if (Array.isArray(value)) return value.join(", ");
  return typeof value === "object" ? JSON.stringify(value) : String(value);
}

function choose(select, options, value) {
  select.replaceChildren(...options.map(([key, label]) => el("option", { value: key }, label)));
  if (value !== undefined && options.some(([key]) => String(key) === String(value))) select.value = value;
}

const cut = (text, n) => (text.length > n ? `${text.slice(0, n)}…` : text);

/** A diff as nodes, from the lengths that Python cut (analysis/trace/columns.py). */
function diff(last, correction, cuts) {
  const out = [];
  let [i, j] = [0, 0];
  for (const [a, b] of cuts) {
    if (b === undefined) out.push(last.slice(i, i + a));
    else {
      if (a) out.push(el("del", {}, last.slice(i, i + a)));
      if (b) out.push(el("ins", {}, correction.slice(j, j + b)));
    }
    i += a;
    j += b ?? a;
  }
  return out;
}

function describe(...pairs) {
  return el("dl", { class: "text" }, ...pairs.flatMap(([name, ...content]) => [el("dt", {}, name), el("dd", {}, ...content)]));
}

/** Scroll a wide table, and nothing else, so far that its current column is seen. */
function reveal(box) {
  const head = box.querySelector("th.here");
  if (head) box.scrollLeft = Math.max(0, head.offsetLeft + head.offsetWidth + 8 - box.clientWidth);
}

/** Rebuild part of the page, and give the focus back to the button that stands where the focused one stood. */
function keepFocus(part, build) {
  const before = [...part.querySelectorAll("button")].indexOf(document.activeElement);
  build();
  if (before >= 0) part.querySelectorAll("button")[before]?.focus();
}
