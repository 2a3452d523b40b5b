// The page's charts and numbers: which numbers of the report each of them shows.

const ALL_BINS = "bins";

function curveChoices() {
  const names = [...report.areas, ...report.classes.map((name) => `class ${name}`)];
  const choices = names.map((name, i) => [String(i), name]);
  return comparing ? choices : [[ALL_BINS, "every size"], ...choices];
}

// [{name, color, run, entry}] of a choice: entry is the place in the report's lists of curves.
function chosenLines(choice) {
  if (choice === ALL_BINS) {
    return report.areas.map((name, entry) => {
      return { name, color: LINE_COLORS[entry % LINE_COLORS.length], run: 0, entry };
    });
  }
  return report.runs.map((run, r) => {
    const name = comparing ? run.name : byId("curve-selection").selectedOptions[0].textContent;
    return { name, color: RUN_COLORS[r], run: r, entry: Number(choice) };
  });
}

function drawCurves(choice) {
  const lines = chosenLines(choice);
  const share = { min: 0, max: 1 };
  lineChart(byId("chart-precision"), {
    title: `Precision against recall at IoU ${report.iou}`,
    subtitle: "COCO's interpolated precision, mean over the classes",
    x: { ...share, label: "recall" },
    y: { ...share, label: "precision" },
    series: lines.map((line) => ({
      ...line,
      points: report.precision[line.run][line.entry].map((p, i) => [i / 100, p]),
    })),
  });
  lineChart(byId("chart-accuracy"), {
    title: `Accuracy against recall at IoU ${report.iou}`,
    subtitle: "over the score threshold, all classes together; the dot is the threshold in use",
    x: { ...share, label: "recall" },
    y: { ...share, label: "accuracy" },
    series: lines.map((line) => {
      const { recall, accuracy, score, at } = report.accuracy[line.run][line.entry];
      const points = recall.map((r, i) => [r, accuracy[i], `, score ${score[i].toFixed(2)}`]);
      return { ...line, points, mark: at === null ? null : points[at] };
    }),
  });
  drawScores(choice === ALL_BINS ? 0 : Number(choice));
}

function drawScores(entry) {
  const groups = report.runs.flatMap((run, r) => {
    const [found, wrong] = report.histogram[r][entry];
    const of = comparing ? `${run.name}: ` : "";
    return [
      { name: `${of}true positives`, color: "var(--found)", values: found, hollow: r > 0 },
      { name: `${of}false positives`, color: "var(--classification)", values: wrong, hollow: r > 0 },
    ];
  });
  histogram(byId("chart-scores"), {
    title: "Scores",
    subtitle: entry ? curveChoices().find(([value]) => value === String(entry))[1] : "all sizes",
    x: { min: 0, max: 1, label: "score" },
    y: { label: "detections (logarithmic)" },
    groups,
  });
}

function drawSizeRecall() {
  const { edges, objects, runs } = report.sizeRecall;
  const centers = objects.map((_, i) => Math.sqrt(Math.max(edges[i], 0.5) * edges[i + 1]));
  const curves = [
    ["recall", `recall at IoU ${report.iou}, any score`],
    ["average", "AR, mean over the IoUs"],
    ["atThreshold", `recall at IoU ${report.iou} and the threshold`],
  ];
  const series = runs.flatMap((run, r) =>
    curves
      .filter(([name]) => !comparing || name !== "atThreshold")
      .map(([name, text], i) => ({
        name: comparing ? `${report.runs[r].name}: ${text}` : text,
        color: comparing ? RUN_COLORS[r] : LINE_COLORS[i],
        dashed: comparing && i > 0,
        dots: true,
        points: run[name].map((value, b) => [centers[b], value]),
      })),
  );
  const [min, max] = [Math.max(edges[0], 0.5), edges[edges.length - 1]];
  lineChart(byId("chart-size"), {
    title: "Recall against object size",
    subtitle: "bars: number of objects",
    x: { min, max, log: true, label: "sqrt(area) in px", ticks: sizeTicks(min, max) },
    y: { min: 0, max: 1, label: "recall" },
    series,
    bars: { edges: edges.map((edge) => Math.max(edge, 0.5)), values: objects },
  });
}

function drawErrorBars() {
  const host = byId("error-bars");
  const row = make(host, "div", { class: "key-row" });
  for (const kind of ERROR_KINDS) key(row, kind, kindColor(kind));
  const total = (counts) => ERROR_KINDS.reduce((sum, kind) => sum + counts[KIND[kind]], 0);
  const most = Math.max(1, ...report.errors.flatMap((run) => run.map(total)));
  report.bins.forEach((bin, b) => {
    report.runs.forEach((run, r) => {
      const counts = report.errors[r][b];
      const line = make(host, "div", { class: "bar-row" });
      make(line, "span", {}, comparing ? `${bin}, ${run.name}` : bin);
      const bar = make(line, "div", { class: "bar" });
      for (const kind of ERROR_KINDS) {
        const count = counts[KIND[kind]];
        if (!count) continue;
        const piece = make(bar, "i", { title: `${kind}: ${count.toLocaleString("en")}` });
        piece.style.width = `${(100 * count) / most}%`;
        piece.style.background = kindColor(kind);
      }
      make(line, "span", {}, plural(total(counts), "error"));
    });
  });
}

function confusionNames() {
  const names = report.confusionClasses.map((k) => report.classes[k]);
  const others = names.length < report.classes.length ? ["all others"] : [];
  return [...names, ...others];
}

function drawConfusion() {
  const names = confusionNames();
  // The counts always have a line for the other classes; it is empty where all are shown.
  const lines = [...names.keys(), report.confusionClasses.length + 1];
  report.runs.forEach((run, r) => {
    const box = make(byId("confusion-tables"), "div", { class: "scroll" });
    const table = make(box, "table", { class: "confusion" });
    if (comparing) make(table, "caption", {}, run.name);
    const head = make(make(table, "thead"), "tr");
    make(head, "th", { scope: "col" }, "object");
    for (const name of [...names, "missed"]) make(head, "th", { scope: "col" }, name);
    const body = make(table, "tbody");
    for (const row of lines) {
      const line = make(body, "tr");
      make(line, "th", { scope: "row" }, names[row] ?? "background");
      const sum = lines.reduce((s, column) => s + report.confusion[r][row][column], 0);
      for (const column of lines) {
        const count = report.confusion[r][row][column];
        const corner = row === lines.at(-1) && column === lines.at(-1);
        const cell = make(line, "td", {}, corner ? "" : String(count || "·"));
        if (count) cell.style.background = `rgba(var(--heat), ${(0.08 + (0.55 * count) / sum).toFixed(3)})`;
        cell.title = `${names[row] ?? "background"} as ${names[column] ?? "missed"}: ${count}`;
      }
    }
  });
}

// The most frequent classification errors, by the sum over the runs.
function drawConfusedPairs() {
  const names = confusionNames();
  const pairs = [];
  for (const row of names.keys()) {
    for (const column of names.keys()) {
      const counts = report.runs.map((_, r) => report.confusion[r][row][column]);
      if (row !== column && counts.some(Boolean)) pairs.push({ row, column, counts });
    }
  }
  if (!pairs.length) return;
  const sum = (pair) => pair.counts.reduce((a, b) => a + b, 0);
  pairs.sort((a, b) => sum(b) - sum(a));
  const table = make(make(byId("confused-pairs"), "div", { class: "scroll" }), "table");
  make(table, "caption", {}, "Most frequent confusions");
  const head = make(make(table, "thead"), "tr");
  const counts = comparing ? report.runs.map((run) => run.name) : ["count"];
  make(head, "th", { scope: "col" }, "object");
  make(head, "th", { scope: "col", class: "run" }, "detected as");
  for (const name of counts) make(head, "th", { scope: "col" }, name);
  const body = make(table, "tbody");
  for (const pair of pairs.slice(0, 10)) {
    const line = make(body, "tr");
    make(line, "th", { scope: "row" }, names[pair.row]);
    make(line, "td", { class: "run" }, names[pair.column]);
    for (const count of pair.counts) make(line, "td", {}, String(count));
  }
}

function drawHeadline() {
  const text = (value) => (value === null ? "n/a" : value.toFixed(1));
  for (const name of Object.keys(report.runs[0].headline)) {
    const values = report.runs.map((run) => run.headline[name]);
    const card = make(byId("headline"), "div", { class: "card" });
    const number = make(card, "b", {}, values.map(text).join(" \u2192 "));
    make(card, "span", {}, name);
    if (!comparing || values.includes(null)) continue;
    const change = Number((values[1] - values[0]).toFixed(1));
    const style = change > 0 ? "better" : change < 0 ? "worse" : "same";
    make(number, "small", { class: style }, ` ${change > 0 ? "+" : ""}${change.toFixed(1)}`);
  }
  if (comparing) {
    const note = `In each pair: ${report.runs.map((run) => run.name).join(" \u2192 ")}. `;
    make(byId("headline"), "p", { class: "note" }, `${note}Differences are the second minus the first.`);
  }
}
