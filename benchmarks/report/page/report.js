"use strict";
(() => {
  const root = document.documentElement;
  root.classList.add("scripted");
  const all = (selector, within = document) => [...within.querySelectorAll(selector)];
  const one = (selector) => document.querySelector(selector);

  // What is shown, shared by every table and figure.
  const hidden = { estimator: new Set(), run: new Set() };
  let problem = "";
  const shows = (estimator, run) =>
    !(estimator && hidden.estimator.has(estimator)) && !(run && hidden.run.has(run));

  // ---- theme: the system's until the button is pressed; kept in the page alone
  const system = matchMedia("(prefers-color-scheme: dark)");
  const dark = () => (root.dataset.theme ? root.dataset.theme === "dark" : system.matches);
  const button = one("#theme");
  function themed() {
    button.textContent = dark() ? "Light theme" : "Dark theme";
    drawAll();
  }
  button.addEventListener("click", () => {
    root.dataset.theme = dark() ? "light" : "dark";
    themed();
  });
  system.addEventListener("change", themed);

  // ---- figures
  const panels = JSON.parse(one("#data").textContent);
  const drawn = new Set();

  function axisColors(name, layout, log) {
    const style = getComputedStyle(root);
    const color = (key) => style.getPropertyValue(key).trim();
    const axis = structuredClone(layout[name] || {});
    Object.assign(axis, { gridcolor: color("--line"), linecolor: color("--muted"), tickcolor: color("--muted") });
    axis.showline = true;
    axis.ticks = "outside";
    axis.exponentformat = "power";
    axis.minexponent = 6;
    if (axis.title) axis.title.font = { size: 13 };
    if (log !== null) {
      axis.type = log ? "log" : "linear";
      if (!log) {
        delete axis.tickvals;
        delete axis.ticktext;
      } else if (!axis.tickvals) {
        axis.dtick = null;
        axis.nticks = 6;
        axis.minor = { ticks: "outside", ticklen: 3, tickcolor: color("--line") };
      }
    }
    return axis;
  }

  function front(traces) {
    // The corners of the Pareto front of the points that are shown.
    const points = traces
      .filter((t) => t.visible && t.meta.estimator)
      .flatMap((t) => t.x.map((x, i) => [x, t.y[i]]))
      .sort((a, b) => a[0] - b[0] || a[1] - b[1]);
    const best = [];
    for (const point of points) if (!best.length || point[1] < best.at(-1)[1]) best.push(point);
    if (!best.length) return { x: [], y: [] };
    // Down from the noisiest, and on to the slowest.
    const x = [...best.flatMap((p) => [p[0], p[0]]), Math.max(...points.map((p) => p[0]))];
    const y = [Math.max(...points.map((p) => p[1])), ...best.flatMap((p) => [p[1], p[1]])];
    return { x, y };
  }

  function draw(id) {
    const spec = panels[id];
    const place = document.getElementById(id);
    const style = getComputedStyle(root);
    const ink = style.getPropertyValue("--ink").trim();
    const traces = structuredClone(spec.data);
    for (const trace of traces) {
      const meta = trace.meta || {};
      trace.visible = shows(meta.estimator, meta.run);
      const color = meta.role === "front" ? ink : dark() ? meta.dark : meta.color;
      if (trace.marker) trace.marker.color = color;
      if (trace.line) trace.line.color = color;
      if (trace.fillcolor) trace.fillcolor = color;
      for (const bars of [trace.error_x, trace.error_y]) if (bars) bars.color = meta.role === "bar" ? ink : color;
    }
    if (spec.pareto) {
      const line = traces.find((t) => t.meta.role === "front");
      Object.assign(line, front(traces), { visible: traces.some((t) => t.visible && t.meta.estimator) });
    }
    const layout = structuredClone(spec.layout);
    layout.xaxis = axisColors("xaxis", spec.layout, spec.log.x);
    layout.yaxis = axisColors("yaxis", spec.layout, spec.log.y);
    Object.assign(layout, {
      paper_bgcolor: "rgba(0,0,0,0)",
      plot_bgcolor: "rgba(0,0,0,0)",
      font: { color: ink, size: 13, family: getComputedStyle(document.body).fontFamily },
      hoverlabel: {
        bgcolor: style.getPropertyValue("--raised").trim(),
        bordercolor: style.getPropertyValue("--muted").trim(),
        font: { color: ink },
        align: "left",
        namelength: -1,
      },
      modebar: { bgcolor: "rgba(0,0,0,0)", color: style.getPropertyValue("--muted").trim() },
      dragmode: matchMedia("(pointer: coarse)").matches ? false : "zoom",
      uirevision: `${spec.log.x} ${spec.log.y}`,
    });
    drawn.add(id);
    return Plotly.react(place, traces, layout, {
      responsive: true,
      displaylogo: false,
      modeBarButtonsToRemove: ["select2d", "lasso2d", "autoScale2d"],
      toImageButtonOptions: { format: "svg", filename: id },
    });
  }
  const drawAll = () => drawn.forEach(draw);

  const seen = new IntersectionObserver(
    (entries) => {
      for (const entry of entries)
        if (entry.isIntersecting) {
          seen.unobserve(entry.target);
          draw(entry.target.id);
        }
    },
    { rootMargin: "600px" },
  );
  all(".plot").forEach((place) => seen.observe(place));
  addEventListener("beforeprint", () => Object.keys(panels).forEach(draw));
  for (const box of all("[data-log]"))
    box.addEventListener("change", () => {
      const id = box.closest("[data-panel]").dataset.panel;
      panels[id].log[box.dataset.log] = box.checked;
      draw(id);
    });

  // ---- tables
  const number = (text) => {
    const found = text.replace("−", "-").match(/-?\d[\d,]*\.?\d*(e-?\d+)?/i);
    return found ? Number(found[0].replaceAll(",", "")) : NaN;
  };
  function keyOf(cell) {
    if (!cell) return NaN;
    if (cell.dataset.sort !== undefined) return cell.dataset.sort === "" ? NaN : Number(cell.dataset.sort);
    const text = cell.textContent.trim();
    return cell.classList.contains("number") ? number(text) : text;
  }
  function sort(table, column, ascending) {
    const body = table.tBodies[0];
    const missing = (key) => key === "" || Number.isNaN(key);
    const lines = [...body.rows].map((line) => [line, keyOf(line.cells[column])]);
    lines.sort(([, a], [, b]) => {
      if (missing(a) || missing(b)) return missing(a) - missing(b); // last, whatever the direction
      const order = typeof a === "string" ? a.localeCompare(b, "en", { numeric: true }) : a - b;
      return ascending ? order : -order;
    });
    body.append(...lines.map(([line]) => line));
    [...table.tHead.rows[0].cells].forEach((cell, i) => {
      if (i === column) cell.setAttribute("aria-sort", ascending ? "ascending" : "descending");
      else cell.removeAttribute("aria-sort");
    });
  }
  for (const table of all("table.sortable"))
    all("thead button", table).forEach((head, column) =>
      head.addEventListener("click", () => {
        const now = head.closest("th").getAttribute("aria-sort");
        sort(table, column, now !== "ascending");
      }),
    );

  const search = one("#search");
  function filterTables() {
    for (const line of all("table.sortable tbody tr")) {
      const data = line.dataset;
      let shown = shows(data.estimator, data.run) && (!problem || !data.problem || data.problem === problem);
      if (line.closest("#verdict-table")) {
        for (const choice of all("select.setting")) {
          const value = line.getAttribute(`data-${choice.dataset.setting}`);
          shown &&= !choice.value || !value || value === choice.value;
        }
        const words = search.value.toLowerCase().split(/\s+/).filter(Boolean);
        const text = line.textContent.toLowerCase();
        shown &&= words.every((word) => text.includes(word));
      }
      line.hidden = !shown;
    }
    const lines = all("#verdict-table tbody tr");
    if (lines.length) one("#count").textContent = `${lines.filter((l) => !l.hidden).length} of ${lines.length} lines`;
  }
  function filterFigures() {
    for (const panel of all("[data-panel]"))
      panel.hidden = Boolean(problem && panel.dataset.problem && panel.dataset.problem !== problem);
    drawAll();
  }
  function filter() {
    const boxes = all("input[name=estimator]");
    hidden.estimator = new Set(boxes.filter((b) => !b.checked).map((b) => b.value));
    hidden.run = new Set(all("input[name=run]").filter((b) => !b.checked).map((b) => b.value));
    problem = one("#problem")?.value || "";
    if (boxes.length)
      one("#chosen").textContent = `${boxes.length - hidden.estimator.size} of ${boxes.length} shown, here and in every figure`;
    filterTables();
    filterFigures();
  }
  all("input[name=estimator], input[name=run], #problem").forEach((c) => c.addEventListener("change", filter));
  for (const [id, state] of [["#all", true], ["#none", false]])
    one(id)?.addEventListener("click", () => {
      all("input[name=estimator]").forEach((box) => (box.checked = state));
      filter();
    });
  all("select.setting").forEach((choice) => choice.addEventListener("change", filterTables));
  search?.addEventListener("input", filterTables);

  themed();
  filter();
})();
