// Tables of rows: sort, filter, pages.

const OPERATORS = {
  ">": (a, b) => a > b, ">=": (a, b) => a >= b, "<": (a, b) => a < b, "<=": (a, b) => a <= b,
};

/**
 * What a filter asks: a list of tests of a row. `name:text` and `name>1` ask one column, anything else all of them.
 * Numbers are compared as numbers, a column without a value never passes.
 */
function tests(text, columns, haystack) {
  return text.trim().split(/\s+/).filter(Boolean).map((word) => {
    const match = /^(\w+)(>=|<=|>|<|:)(.+)$/.exec(word);
    const column = match && columns.find((c) => c.name.toLowerCase() === match[1].toLowerCase());
    if (!column) return (i) => haystack(i).includes(word.toLowerCase());
    const [wanted, number] = [match[3].toLowerCase(), Number(match[3])];
    if (match[2] !== ":") return (i) => column.get(i) !== null && OPERATORS[match[2]](Number(column.get(i)), number);
    return (i) => {
      const value = column.get(i);
      if (typeof value === "number" && !Number.isNaN(number)) return value === number;
      return shown(value).toLowerCase().includes(wanted);
    };
  });
}

/** Order of two values: numbers by size, the rest as text, missing ones last whatever the direction. */
function order(a, b, sign) {
  if (a === null || b === null) return (a === null) - (b === null);
  if (typeof a === "object") [a, b] = [shown(a), shown(b)];
  return a < b ? -sign : a > b ? sign : 0;
}

/**
 * A table that sorts, filters and turns pages: it draws `SIZE` rows at a time, so thousands stay quick.
 * `columns` are {name, get(row), kind: "number" | "text"}; `open(row)`, where given, is what a row's button does.
 */
class RowTable {
  static SIZE = 100;

  constructor(mount, caption, note, n, columns, open = null) {
    Object.assign(this, { caption, n, columns, open, page: 0, by: null, sign: 1, texts: [] });
    this.every = Array.from({ length: n }, (_, i) => i);
    this.rows = this.every;
    const id = `filter-${mount.id}`;
    this.input = el("input", { id, type: "search", "aria-label": `Filter ${caption}`, placeholder: "words, name:text, name>1", oninput: () => this.filter() });
    this.status = el("span", { role: "status" });
    this.previous = el("button", { type: "button", onclick: () => this.turn(-1) }, "Previous page");
    this.next = el("button", { type: "button", onclick: () => this.turn(1) }, "Next page");
    this.heads = columns.map((c) => el("th", { scope: "col", class: c.kind === "number" ? "number" : null },
      el("button", { type: "button", onclick: () => this.sort(c) }, c.name)));
    this.body = el("tbody");
    const head = el("tr", {}, ...this.heads, open ? el("th", { scope: "col" }, "trace") : null);
    mount.replaceChildren(el("div", { class: "rows" }, el("h3", {}, caption), note ? el("p", { class: "muted" }, note) : null,
      el("div", { class: "tools" }, el("label", { for: id }, "Filter"), this.input, this.status, this.previous, this.next),
      el("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": caption },
        el("table", { "aria-label": caption }, el("thead", {}, head), this.body))));
    this.draw();
  }

  /** All of a row's texts in small letters, made once. */
  haystack(i) {
    this.texts[i] ??= this.columns.map((c) => shown(c.get(i))).join("\u0000").toLowerCase();
    return this.texts[i];
  }

  filter() {
    const asked = tests(this.input.value, this.columns, (i) => this.haystack(i));
    this.rows = this.every.filter((i) => asked.every((test) => test(i)));
    this.arrange();
  }

  sort(column) {
    this.sign = this.by === column ? -this.sign : 1;
    this.by = column;
    this.columns.forEach((c, k) => {
      if (c === column) this.heads[k].setAttribute("aria-sort", this.sign > 0 ? "ascending" : "descending");
      else this.heads[k].removeAttribute("aria-sort");
    });
    this.arrange();
  }

  arrange() {
    if (this.by) {
      const { get } = this.by;
      this.rows = [...this.rows].sort((i, j) => order(get(i), get(j), this.sign) || i - j);
    }
    this.page = 0;
    this.draw();
  }

  turn(by) {
    this.page += by;
    this.draw();
  }

  draw() {
    const start = this.page * RowTable.SIZE;
    const part = this.rows.slice(start, start + RowTable.SIZE);
    this.body.replaceChildren(...part.map((i) => this.row(i)));
    const of = this.rows.length === this.n ? `${this.n} rows` : `${this.rows.length} of ${this.n} rows`;
    this.status.textContent = part.length ? `Rows ${start + 1} to ${start + part.length} of ${of}` : `No row of ${this.n}`;
    this.previous.disabled = this.page === 0;
    this.next.disabled = start + RowTable.SIZE >= this.rows.length;
  }

  row(i) {
    const cells = this.columns.map((c) => {
      const text = shown(c.get(i));
      return el("td", { class: c.kind, title: c.kind === "text" && text.length > 30 ? text : null }, text);
    });
    const button = this.open && el("button", { type: "button", onclick: () => this.open(i) }, "Show");
    return el("tr", { "data-row": i }, ...cells, this.open ? el("td", {}, button) : null);
  }
}
