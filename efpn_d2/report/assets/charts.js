// Line and bar charts. A series: {name, color, dashed, points: [[x, y], ...], mark: [x, y]}.

function chartFigure(figure, title, subtitle) {
  figure.replaceChildren();
  const caption = make(figure, "figcaption", {}, title);
  if (subtitle) make(caption, "small", {}, subtitle);
}

function emptyChart(figure) {
  make(figure, "p", { class: "note" }, "n/a: there are no objects, or no detections.");
}

function lineChart(figure, { title, subtitle, x, y, series, bars = null }) {
  chartFigure(figure, title, subtitle);
  const lines = series.filter((line) => line.points.some(([, value]) => value !== null));
  if (!lines.length) {
    emptyChart(figure);
    return;
  }
  const { svg, px, py, bottom } = frame(figure, x, y, `${title}: ${y.label} over ${x.label}`);
  if (bars) drawBackBars(svg, px, bottom, bars);
  for (const line of lines) {
    make(svg, "path", {
      d: path(line.points, px, py),
      fill: "none",
      stroke: line.color,
      "stroke-width": 2,
      "stroke-linejoin": "round",
      "stroke-dasharray": line.dashed ? "6 4" : null,
    });
    if (line.dots) {
      for (const [a, b] of line.points) {
        if (b !== null) make(svg, "circle", { cx: px(a), cy: py(b), r: 2.5, fill: line.color });
      }
    }
    if (line.mark) {
      const [a, b] = line.mark;
      const dot = make(svg, "circle", { cx: px(a), cy: py(b), r: 5, fill: line.color });
      dot.setAttribute("stroke", "var(--card)");
      dot.setAttribute("stroke-width", 2);
    }
  }
  const row = make(figure, "div", { class: "key-row" });
  for (const line of lines) key(row, line.name, line.color, line.dashed);
  pointAt(figure, svg, px, lines, x, y);
}

function path(points, px, py) {
  let pen = "M";
  let d = "";
  for (const [a, b] of points) {
    if (b === null) {
      pen = "M";
      continue;
    }
    d += `${pen}${px(a).toFixed(2)} ${py(b).toFixed(2)}`;
    pen = "L";
  }
  return d;
}

function drawBackBars(svg, px, bottom, { edges, values }) {
  const most = Math.max(...values, 1);
  values.forEach((value, i) => {
    const height = ((bottom - FRAME.top) * 0.45 * value) / most;
    const left = px(edges[i]);
    const width = Math.max(px(edges[i + 1]) - left - 1, 1);
    const attributes = { x: left, y: bottom - height, width, height, fill: "var(--line)" };
    const bar = make(svg, "rect", attributes);
    make(bar, "title", {}, `${edges[i]} to ${edges[i + 1]} px: ${plural(value, "object")}`);
  });
}

// The values of all lines at the pointer.
function pointAt(figure, svg, px, lines, x, y) {
  const rule = make(svg, "line", { class: "axis", y1: FRAME.top, y2: FRAME.height - FRAME.bottom });
  rule.style.display = "none";
  const tip = make(figure, "div", { class: "tip", hidden: "" });
  svg.addEventListener("pointermove", (event) => {
    const area = svg.getBoundingClientRect();
    const at = ((event.clientX - area.left) / area.width) * FRAME.width;
    const nearest = lines.map((line) =>
      line.points.reduce(
        (best, point) =>
          point[1] !== null && (!best || Math.abs(px(point[0]) - at) < Math.abs(px(best[0]) - at))
            ? point
            : best,
        null,
      ),
    );
    rule.style.display = "";
    rule.setAttribute("x1", at);
    rule.setAttribute("x2", at);
    tip.replaceChildren();
    lines.forEach((line, i) => {
      const [a, b, note] = nearest[i];
      const text = `${line.name}: ${Number(b.toFixed(3))} at ${Number(a.toFixed(3))}${note ?? ""}`;
      key(make(tip, "div"), text, line.color);
    });
    tip.hidden = false;
    const beside = at > FRAME.width / 2 ? -tip.offsetWidth - 12 : 12;
    tip.style.left = `${event.clientX - area.left + beside}px`;
    tip.style.top = `${svg.offsetTop ?? 0}px`;
  });
  svg.addEventListener("pointerleave", () => {
    rule.style.display = "none";
    tip.hidden = true;
  });
}

// Pairs of bars over equal steps from 0 to 1. groups: [{name, color, values, hollow}].
function histogram(figure, { title, subtitle, x, y, groups }) {
  chartFigure(figure, title, subtitle);
  const most = Math.max(...groups.flatMap((group) => group.values), 0);
  if (!most) {
    emptyChart(figure);
    return;
  }
  const vertical = { ...y, min: 0, max: most * 1.1, counts: true, ticks: countTicks(most * 1.1) };
  const { svg, px, py, bottom } = frame(figure, x, vertical, `${title}: ${y.label} by ${x.label}`);
  const count = groups[0].values.length;
  groups.forEach((group, g) => {
    group.values.forEach((value, i) => {
      if (!value) return;
      const step = (px(1) - px(0)) / count;
      const width = (step - 3) / groups.length;
      const bar = make(svg, "rect", {
        x: px(i / count) + 1.5 + g * width,
        y: py(value),
        width,
        height: bottom - py(value),
        fill: group.color,
        "fill-opacity": group.hollow ? 0.45 : 1,
      });
      const range = `${(i / count).toFixed(2)} to ${((i + 1) / count).toFixed(2)}`;
      make(bar, "title", {}, `${group.name}, score ${range}: ${value.toLocaleString("en")}`);
    });
  });
  const row = make(figure, "div", { class: "key-row" });
  for (const group of groups) key(row, group.name, group.color).style.opacity = group.hollow ? 0.6 : 1;
}
