// The frame of a chart: axes with ticks, and the place of a value in it.

const FRAME = { width: 560, height: 330, left: 52, right: 12, top: 12, bottom: 44 };

function scale(axis, from, to) {
  const at = axis.log ? Math.log : axis.counts ? (v) => Math.log10(1 + v) : (v) => v;
  const [low, high] = [at(axis.min), at(axis.max)];
  return (value) => from + ((at(value) - low) / (high - low || 1)) * (to - from);
}

function niceTicks(min, max, count = 5) {
  const rough = (max - min) / count || 1;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = power * [1, 2, 5, 10].find((m) => m * power >= rough * 0.999);
  const ticks = [];
  for (let i = Math.ceil(min / step - 1e-9); i * step <= max + step * 1e-9; i += 1) {
    ticks.push(Number((i * step).toPrecision(12)));
  }
  return ticks;
}

function countTicks(max) {
  const steps = max < 1000 ? [1, 2, 5] : [1];
  const ticks = [0];
  for (let power = 1; power <= max; power *= 10) {
    for (const step of steps) if (step * power <= max) ticks.push(step * power);
  }
  return ticks;
}

// Of a logarithmic axis: doublings, every second of many, and steps between where they are few.
function sizeTicks(min, max) {
  const powers = [];
  for (let power = Math.floor(Math.log2(min)); 2 ** power <= max; power += 1) powers.push(power);
  const within = (ticks) => ticks.filter((tick) => tick >= min && tick <= max);
  const doublings = within(powers.map((power) => 2 ** power));
  if (doublings.length > 9) return doublings.filter((tick) => Math.log2(tick) % 2 === 0);
  if (doublings.length > 3) return doublings;
  const between = within(powers.flatMap((power) => [2 ** power, 1.5 * 2 ** power]));
  return between.length > 3 ? between : niceTicks(min, max);
}

function frame(figure, x, y, label) {
  const svg = make(figure, "svg", {
    class: "chart",
    viewBox: `0 0 ${FRAME.width} ${FRAME.height}`,
    role: "img",
    "aria-label": label,
  });
  const right = FRAME.width - FRAME.right;
  const bottom = FRAME.height - FRAME.bottom;
  const px = scale(x, FRAME.left, right);
  const py = scale(y, bottom, FRAME.top);
  for (const tick of y.ticks ?? niceTicks(y.min, y.max)) {
    const at = py(tick);
    make(svg, "line", { class: "grid", x1: FRAME.left, x2: right, y1: at, y2: at });
    const text = tick.toLocaleString("en");
    make(svg, "text", { x: FRAME.left - 7, y: at + 4, "text-anchor": "end" }, text);
  }
  for (const tick of x.ticks ?? niceTicks(x.min, x.max)) {
    const at = px(tick);
    make(svg, "line", { class: "grid", x1: at, x2: at, y1: FRAME.top, y2: bottom });
    make(svg, "text", { x: at, y: bottom + 17, "text-anchor": "middle" }, String(tick));
  }
  make(svg, "line", { class: "axis", x1: FRAME.left, x2: right, y1: bottom, y2: bottom });
  const middle = (FRAME.left + right) / 2;
  make(svg, "text", { x: middle, y: FRAME.height - 6, "text-anchor": "middle" }, x.label);
  const turned = { x: 0, y: 0, "text-anchor": "middle" };
  turned.transform = `translate(13 ${(FRAME.top + bottom) / 2}) rotate(-90)`;
  make(svg, "text", turned, y.label);
  return { svg, px, py, bottom, right };
}
