/**
 * The heat strip of one item: rows are layers, the first at the bottom, columns the tokens of the diff. Above, `last` as
 * the prompt holds it; below, the correction as it is written, led by the prompt's last token, after which it begins.
 */
class HeatStrip {
  constructor(mount, traces, steered) {
    Object.assign(this, { mount, traces, steered });
  }

  show(item, stop) {
    const { traces } = this;
    const of = traces.items?.[item];
    const at = of?.at[stop];
    const why = traces.absent ? `No projections: ${traces.absent}.`
      : !of ? `Item ${item} has no projections: they are of the first ${traces.n} of ${traces.of} items.`
      : at === null || at === undefined ? `No projections of this correction: ${of.absent[stop] ?? "it was not steered by the vector"}.` : "";
    if (why) {
      this.mount.replaceChildren(el("p", { class: "muted" }, why));
      return;
    }
    this.readout = el("p", { class: "readout", "aria-live": "polite" });
    const table = el("table", { class: "strip", "aria-label": "Projection by layer and token" }, ...this.parts(of, of.corrections[at]));
    this.cursor = [0, 0];
    const box = el("div", {
      class: "scroll", tabindex: 0, role: "region",
      "aria-label": "Projections; arrow keys move from token to token and from layer to layer",
      onkeydown: (event) => this.key(event),
      onmouseover: (event) => event.target.dataset.at && this.point(...event.target.dataset.at.split(",").map(Number)),
    }, table);
    this.mount.replaceChildren(this.scale(), box, this.readout);
  }

  scale() {
    const { limit } = this.traces;
    const ramp = el("span", { class: "ramp", role: "img", "aria-label": "colour scale from copying to rewriting" });
    return el("div", { class: "scale" }, `copying −${limit} ‖h‖`, ramp, `+${limit} ‖h‖ rewriting`);
  }

  parts(of, correction) {
    this.cells = [];
    const columns = correction.columns;
    const blanks = (n) => Array.from({ length: n }, () => el("td"));
    const upper = columns.map(([i]) => i);
    const lower = columns.map(([, j]) => j);
    const tokens = (side, texts, mark) => side.map((k, c) => {
      if (k < 0) return el("td", { class: "token" });
      const same = columns[c][2];
      return el("td", { class: same === 2 ? "token prompt" : "token" }, same ? texts[k] : el(mark, {}, texts[k]));
    });
    const lead = (text) => el("td", { class: "token prompt", title: "the prompt's last token" }, text);
    const layers = (name, side, texts, values, before) => [...this.traces.layers.keys()].reverse().map((l) => {
      const row = this.cells.push([]) - 1;
      const label = this.traces.layers[l];
      const head = el("th", { scope: "row", class: this.steered.includes(label) ? "steered" : null,
        title: this.steered.includes(label) ? "steered here" : null }, `layer ${label}`);
      const cell = (token, value) => this.heat(row, `${name}, layer ${label}`, token, value);
      const first = before ? [cell(before.tokens[0], before.values[l][0])] : blanks(1);
      return el("tr", {}, head, ...first, ...side.map((k) => (k < 0 ? el("td") : cell(texts[k], values[l][k]))));
    });
    return [
      el("tbody", {}, el("tr", {}, el("th", { scope: "row" }, "last"), ...blanks(1), ...tokens(upper, of.last.tokens, "del")),
        ...layers("last", upper, of.last.tokens, of.last.values, null)),
      el("tbody", {}, el("tr", { class: "gap" }, el("td"))),
      el("tbody", {}, el("tr", {}, el("th", { scope: "row" }, "correction"), lead(of.prompt_last.tokens[0]), ...tokens(lower, correction.tokens, "ins")),
        ...layers("correction", lower, correction.tokens, correction.values, of.prompt_last)),
    ];
  }

  heat(row, where, token, value) {
    const share = Math.min(1, Math.abs(value) / this.traces.limit);
    const out = el("td", { class: "heat", "data-at": `${row},${this.cells[row].length}` });
    out.style.backgroundColor = `rgba(var(${value < 0 ? "--minus" : "--plus"}), ${share.toFixed(3)})`;
    this.cells[row].push({ out, text: `${where}, token “${token}”: ${value < 0 ? "−" : "+"}${Math.abs(value)} ‖h‖` });
    return out;
  }

  point(row, column) {
    this.mount.querySelector(".cursor")?.classList.remove("cursor");
    this.cursor = [row, column];
    const { out, text } = this.cells[row][column];
    out.classList.add("cursor");
    this.readout.textContent = text;
    return out;
  }

  key(event) {
    const step = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0] }[event.key];
    if (!step) return;
    event.preventDefault();
    const row = Math.min(this.cells.length - 1, Math.max(0, this.cursor[0] + step[0]));
    const column = Math.min(this.cells[row].length - 1, Math.max(0, this.cursor[1] + step[1]));
    this.point(row, column).scrollIntoView({ block: "nearest", inline: "nearest" });
  }
}
