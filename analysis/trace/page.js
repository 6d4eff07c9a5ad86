(() => {
  const { runs, made } = JSON.parse(document.getElementById("data").textContent);
  const $ = (id) => document.getElementById(id);
  const TEXT = new Set(["question", "prefix", "last", "correction", "answer", "problem"]);
  const NO_METRIC = new Set([...TEXT, "task", "item", "direction", "coef", "layers", "span", "kind", "badness", "is_wrong", "cuts"]);
  const LAST = new Set(["layers", "span", "applied", "ended", "dose"]);
  const DERIVED = new Set(["task", "cuts", "round_cuts", "answer_cuts", "rounds", "outcomes"]);
  let run, task, edit, loop, places, problems, strip;

  // What a change of the selectors sets up

  function readers(table) {
    return Object.fromEntries(Object.keys(table.columns).map((name) => [name, reader(table, name)]));
  }

  function setRun(wanted = {}) {
    run = runs[$("run").value];
    choose($("task"), run.tasks.map((t, k) => [k, t.name]), wanted.task);
    $("footer").replaceChildren(...footer());
    setTask(wanted);
  }

  function setTask(wanted = {}) {
    task = run.tasks[$("task").value];
    $("title").textContent = task.title;
    $("verdict").textContent = task.verdict;
    $("warning").textContent = task.warning;
    $("note").textContent = task.note;
    $("lines").replaceChildren(...task.lines.map((line) => el("li", {}, line)));
    [edit, loop] = [readers(task.edits), readers(task.loop)];
    index();
    strip = new HeatStrip($("strip"), task.traces, task.steered);
    $("strip-words").textContent = stripWords();
    choose($("direction"), Object.keys(task.stops).map((d) => [d, d === "correction" ? "correction vector" : d]), wanted.direction);
    choose($("item"), [...places.items].map(([item, i]) => [item, itemName(item, i)]), wanted.item ?? firstItem());
    choose($("problem"), [...problems.names].map(([key, i]) => [key, `${key} · ${cut(loop.question(i), 80)}`]), problems.keys[wanted.problem] && wanted.problem);
    $("items-of").textContent = counted(task.edits_of, "items", "--items");
    $("problems-of").textContent = task.loop_of.of ? counted(task.loop_of, "problems", "--problems") : "";
    setDirection(wanted.coef);
    draw();
    tables();
  }

  /** Where each (item, direction, coef) and each (problem, direction, coef) has its row. */
  function index() {
    places = { rows: new Map(), items: new Map() };
    for (let i = 0; i < task.edits.n; i++) {
      places.rows.set(`${edit.item(i)}|${edit.direction(i)}|${edit.coef(i) ?? 0}`, i);
      if (!places.items.has(edit.item(i))) places.items.set(edit.item(i), i);
    }
    problems = { rows: new Map(), names: new Map(), keys: [] };
    const known = new Map();
    for (let i = 0; i < task.loop.n; i++) {
      const name = loop.problem(i);
      if (!known.has(name)) {
        known.set(name, problems.keys.length);
        problems.names.set(problems.keys.length, i);
        problems.keys.push(name);
      }
      problems.rows.set(`${known.get(name)}|${loop.direction(i)}|${loop.coef(i) ?? 0}`, i);
    }
  }

  const wrong = (i) => ({ true: "wrong", false: "right" }[edit.is_wrong?.(i)] ?? "label unknown");
  const itemName = (item, i) => `${item} · ${wrong(i)} · ${cut(edit.last(i) ?? "", 90)}`;

  /** The first item that the unsteered corrector rewrites, since it has something to show. */
  function firstItem() {
    for (const [item, i] of places.items) if (edit.copied?.(i) === false) return item;
    return undefined;
  }

  function counted(of, what, flag) {
    const all = of.rows === of.rows_of ? `All ${of.rows_of} rows` : `${of.rows} of ${of.rows_of} rows (${flag} takes more)`;
    return `${all}, ${of.n} of ${of.of} ${what}.`;
  }

  function stripWords() {
    const t = task.traces;
    if (t.absent) return "";
    return `h·u of the first ${t.n} of ${t.of} items at every layer, u the unit correction direction there. ${t.words} The state at a token is the one ` +
      "after reading it; a correction is teacher-forced as recorded, and begins after the prompt's last token (in italics). Bold layers are steered. " +
      `Colours end at ±${t.limit}, which ${t.within} % of the tokens lie within.`;
  }

  function setDirection(coef) {
    const stops = task.stops[$("direction").value];
    const slider = $("coef");
    const known = stops.findIndex((s) => s.coef === coef && s.direction !== "none" || coef === 0 && s.coef === 0);
    const zero = Math.max(0, stops.findIndex((s) => s.direction === "none"));
    slider.max = stops.length - 1;
    slider.value = known < 0 ? zero : known;
    $("ticks").replaceChildren(...stops.map((s) => el("span", {}, s.label)));
    show();
  }

  // What the slider changes: only recorded rows

  const here = () => task.stops[$("direction").value][$("coef").value];

  function show() {
    const stop = here();
    const label = stop.label === "0" && stop.direction === "none" ? "0 (unsteered)" : stop.label;
    $("stop").textContent = label;
    $("coef").setAttribute("aria-valuetext", `coefficient ${label}`);
    showItem(stop);
    showProblem(stop);
    remember(stop);
  }

  function showItem(stop) {
    const item = $("item").value;
    const i = places.rows.get(`${item}|${stop.direction}|${stop.coef}`);
    const any = i ?? places.items.get(Number(item));
    const label = [wrong(any), edit.kind?.(any), (edit.badness?.(any) ?? null) === null ? "" : `badness ${edit.badness?.(any)}`].filter(Boolean).join(", ");
    $("sentence").replaceChildren(describe(
      ["question", edit.question(any) ?? ""], ["prefix", edit.prefix(any) || "(none)"], ["last", edit.last(any), el("span", { class: "muted" }, `  (${label})`)],
      ["correction", i === undefined ? "no row was recorded here" : edit.correction(i) || "(empty)"],
      ["diff", ...(i === undefined ? [""] : diff(edit.last(i), edit.correction(i), edit.cuts(i)))]));
    metrics(item);
    const of = $("direction").value === "correction" ? Number($("coef").value) : task.stops.correction?.findIndex((s) => s.direction === "none");
    strip.show(item, stop.direction === "correction" || stop.direction === "none" ? of : -1);
  }

  /** Every recorded metric at every stop; a heading moves the slider. */
  function metrics(item) {
    const stops = task.stops[$("direction").value];
    const rows = stops.map((s) => places.rows.get(`${item}|${s.direction}|${s.coef}`));
    const at = Number($("coef").value);
    const mark = (k) => (k === at ? "number here" : "number");
    const heads = stops.map((s, k) => el("th", { scope: "col", class: mark(k), "aria-current": k === at ? "true" : null },
      el("button", { type: "button", "aria-label": `Move the slider to ${s.label}`, onclick: () => move(k) }, s.label)));
    const names = Object.keys(task.edits.columns).filter((name) => !NO_METRIC.has(name));
    const body = names.map((name) => el("tr", { "data-metric": name }, el("th", { scope: "row" }, name),
      ...rows.map((i, k) => el("td", { class: mark(k) }, i === undefined ? "" : shown(edit[name](i))))));
    keepFocus($("metrics"), () => $("metrics").replaceChildren(el("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": "Edit metrics at every coefficient" },
      el("table", {}, el("thead", {}, el("tr", {}, el("th", { scope: "col" }, "coefficient"), ...heads)), el("tbody", {}, ...body)))));
    reveal($("metrics").firstChild);
  }

  function move(k) {
    $("coef").value = k;
    show();
  }

  function showProblem(stop) {
    const key = $("problem").value;
    if (!task.loop.n) return $("answer").replaceChildren(el("p", { class: "muted" }, "The run has no align loop (--problems 0, or not recorded)."));
    const of = (s) => problems.rows.get(`${key}|${s.direction}|${s.coef}`);
    const [i, alone, base] = [of(stop), of({ direction: "upstream", coef: 0 }), of({ direction: "none", coef: 0 })];
    const any = i ?? base ?? alone ?? problems.names.get(Number(key));
    const head = [["question", loop.question?.(any) ?? ""], ...(loop.gold?.(any) ? [["gold", loop.gold(any)]] : [])];
    if (i === undefined) {
      return $("answer").replaceChildren(describe(...head), el("p", { class: "muted" }, `The loop was not run with ${$("direction").value}; choose the correction vector.`));
    }
    const rounds = loop.rounds(i).map((r, k) => {
      const cuts = loop.round_cuts(i)[k];
      if (cuts === null) return el("li", {}, r.last, el("span", { class: "muted" }, "  (not corrected)"));
      return el("li", {}, ...diff(r.last, r.correction, cuts), r.last === r.correction ? el("span", { class: "muted" }, "  (copied)") : null);
    });
    const answers = [["answer", loop.answer(i)]];
    if (loop.answer_cuts(i) && i !== base) answers.push(["against unsteered", ...diff(loop.answer(base), loop.answer(i), loop.answer_cuts(i))]);
    if (alone !== undefined) answers.push(["upstream alone", loop.answer(alone)]);
    const table = outcomes(of, alone);
    $("answer").replaceChildren(describe(...head), el("h4", {}, `${rounds.length} rounds, last → correction`), el("ol", { class: "rounds" }, ...rounds),
      describe(...answers), table, el("p", { class: "muted" }, `Stopped by: ${shown(loop.stopped?.(i))}.`));
    reveal(table);
  }

  /** Outcomes of one problem at every stop, beside the upstream alone. */
  function outcomes(of, alone) {
    const stops = task.stops[$("direction").value];
    const at = Number($("coef").value);
    const rows = [...(alone === undefined ? [] : [["upstream alone", alone, false]]), ...stops.map((s, k) => [s.label, of(s), k === at])];
    const names = [...new Set(rows.flatMap(([, i]) => (i === undefined ? [] : Object.keys(loop.outcomes(i) ?? {}))))];
    const mark = (current) => (current ? "number here" : "number");
    const heads = rows.map(([label, , current]) => el("th", { scope: "col", class: mark(current) }, label));
    const body = names.map((name) => el("tr", { "data-outcome": name }, el("th", { scope: "row" }, name),
      ...rows.map(([, i, current]) => el("td", { class: mark(current) }, i === undefined ? "" : shown(loop.outcomes(i)?.[name])))));
    return el("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": "Outcomes of this problem at every coefficient" },
      el("table", { id: "outcomes" }, el("thead", {}, el("tr", {}, el("th", { scope: "col" }, "outcome"), ...heads)), el("tbody", {}, ...body)));
  }

  const draw = () => drawCharts($("panels"), task.panels, openCell);

  function openCell(direction, coef) {
    if (task.stops[direction]) $("direction").value = direction;
    setDirection(coef);
  }

  // Tables

  function tables() {
    const of = (table, read, hidden) => Object.keys(table.columns).filter((name) => !hidden.has(name)).map((name) => ({
      name, get: read[name], kind: TEXT.has(name) ? "text" : Object.hasOwn(table.columns[name], "values") ? "number" : "",
    }));
    const cells = readers(task.cells);
    new RowTable($("cells"), `Cells of ${task.name}`, "", task.cells.n, of(task.cells, cells, new Set()), (i) => {
      openCell(cells.direction(i), cells.coef(i));
      $("trace").scrollIntoView();
    });
    new RowTable($("edit-rows"), "edits.jsonl", counted(task.edits_of, "items", "--items"), task.edits.n, arranged(of(task.edits, edit, DERIVED)), (i) => {
      $("item").value = edit.item(i);
      if (edit.direction(i) !== "none") $("direction").value = edit.direction(i);
      setDirection(edit.coef(i) ?? 0);
      $("item-heading").scrollIntoView();
    });
    const extra = [...new Set(Array.from({ length: task.loop.n }, (_, i) => Object.keys(loop.outcomes(i) ?? {})).flat())];
    const columns = [...of(task.loop, loop, DERIVED), ...extra.map((name) => ({ name, get: (i) => loop.outcomes(i)?.[name] ?? null, kind: "number" })),
      { name: "n_rounds", get: (i) => loop.rounds(i).length, kind: "number" }];
    if (!task.loop.n) return $("loop-rows").replaceChildren();
    new RowTable($("loop-rows"), "alignments.jsonl", counted(task.loop_of, "problems", "--problems"), task.loop.n, arranged(columns), (i) => {
      $("problem").value = problems.keys.indexOf(loop.problem(i));
      if (task.stops[loop.direction(i)]) $("direction").value = loop.direction(i);
      setDirection(loop.coef(i) ?? 0);
      $("problem-heading").scrollIntoView();
    });
  }

  /** What names a row first, then its texts, the numbers, and what is the same in most rows. */
  function arranged(columns) {
    const first = ["item", "direction", "coef", "is_wrong", "last", "correction", "edit_ratio", "copied"];
    const rank = (c) => (first.includes(c.name) ? first.indexOf(c.name) - 99 : c.kind === "text" ? 1 : LAST.has(c.name) ? 2 : 0);
    return [...columns].sort((a, b) => rank(a) - rank(b));
  }

  function footer() {
    const { source } = run;
    const commit = source.commit ? `${source.commit.slice(0, 12)}${source.dirty ? ", with changes that were not committed" : ""}` : "not recorded";
    const rows = Object.entries(source.rows).map(([name, of]) => `${name}.jsonl: ${of.rows} rows, sha256 ${of.sha256.slice(0, 16)}`);
    const packages = Object.entries(source.packages).map((of) => of.join(" ")).join(", ");
    return [el("p", {}, `Run ${run.name}; commit ${commit}; ${rows.join("; ") || "no hashes recorded"}.`),
      el("p", {}, `Made by `, el("code", {}, made.command), ` with plotly ${made.plotly}. Nothing is fetched: the file is whole.`),
      packages ? el("details", {}, el("summary", {}, "Packages of the run"), packages) : ""];
  }

  // A link to what is shown, in the address

  function remember(stop) {
    const at = { run: $("run").value, task: $("task").value, direction: $("direction").value, coef: stop.coef, item: $("item").value, problem: $("problem").value };
    history.replaceState(null, "", `#${new URLSearchParams(at)}`);
  }

  function step(select, by) {
    select.selectedIndex = Math.min(select.options.length - 1, Math.max(0, select.selectedIndex + by));
    show();
  }

  const asked = Object.fromEntries(new URLSearchParams(location.hash.slice(1)));
  if (asked.coef !== undefined) asked.coef = Number(asked.coef);
  choose($("run"), runs.map((r, k) => [k, r.name]), asked.run);
  $("run").addEventListener("change", () => setRun());
  $("task").addEventListener("change", () => setTask());
  $("direction").addEventListener("change", () => setDirection(here()?.coef));
  for (const id of ["item", "problem"]) {
    $(id).addEventListener("change", show);
    $(`${id}-previous`).addEventListener("click", () => step($(id), -1));
    $(`${id}-next`).addEventListener("click", () => step($(id), 1));
  }
  $("coef").addEventListener("input", show);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
  setRun(asked);
})();
