// Charts: Plotly's figures in the page's colours.

/** A figure with its colour names filled in from page.css, for the look that is on. */
function coloured(value, style) {
  if (typeof value === "string") return value.startsWith("--") ? style.getPropertyValue(value).trim() : value;
  if (Array.isArray(value)) return value.map((v) => coloured(v, style));
  if (value && typeof value === "object") return Object.fromEntries(Object.entries(value).map(([k, v]) => [k, coloured(v, style)]));
  return value;
}

/** The layout with room below for the legend, in columns as wide as its longest name. */
function withLegend({ data, layout }, width) {
  const names = data.filter((trace) => trace.showlegend !== false).map((trace) => trace.name);
  const entrywidth = 5.6 * Math.max(...names.map((name) => name.length));
  const lines = Math.ceil(names.length / Math.max(1, Math.floor((width - 70) / (entrywidth + 42))));
  const below = 29 * lines - 6;
  return { ...layout, height: layout.height + below, margin: { ...layout.margin, b: layout.margin.b + below },
    legend: { ...layout.legend, entrywidth } };
}

/** Draw the panels anew; a click on a point calls `open(direction, coef)` of its cell. */
function drawCharts(box, panels, open) {
  const style = getComputedStyle(document.documentElement);
  const config = { responsive: true, displaylogo: false, modeBarButtonsToRemove: ["lasso2d", "select2d", "autoScale2d"] };
  for (const chart of box.querySelectorAll(".chart")) Plotly.purge(chart);
  const figures = panels.map((panel) => {
    const chart = el("div", { class: "chart", role: "img", "aria-label": `${panel.title}; its numbers stand in the table below` });
    return [panel, chart, el("figure", { "data-panel": panel.name }, el("figcaption", {}, panel.title), chart)];
  });
  box.replaceChildren(...figures.map(([, , figure]) => figure));
  for (const [panel, chart] of figures) {
    Plotly.newPlot(chart, coloured(panel.data, style), coloured(withLegend(panel, chart.clientWidth), style), config);
    chart.on("plotly_click", (event) => {
      const cell = event.points.find((p) => p.customdata)?.customdata;
      if (cell) open(...cell);
    });
  }
}
