// Places for labels that hide no object: outside of every box, near to their own.

const RINGS = [0, 0.6, 1.3, 2.2, 3.4];

// boxes: [x0, y0, x1, y1] in screen pixels; labels: [{box, height, texts: [{text, width}]}], the
// important ones first, and of each its longest text first. Gives for each label
// {x, y, leader, text, width} of the first text that has a free place, or null.
function placeLabels(boxes, labels, width, height) {
  const occupied = [...boxes];
  return labels.map(({ box, height: h, texts }) => {
    for (const { text, width: w } of texts) {
      for (const [x, y] of labelCorners(box, w, h)) {
        const area = [x, y, x + w, y + h];
        if (x < 0 || y < 0 || area[2] > width || area[3] > height) continue;
        if (occupied.some((other) => overlaps(area, other))) continue;
        const leader = leaderLine(box, area);
        if (leader && crosses(leader, occupied)) continue;
        occupied.push(area);
        return { x, y, leader, text, width: w };
      }
    }
    return null;
  });
}

function labelCorners([x0, y0, x1, y1], w, h) {
  const [middleX, middleY] = [(x0 + x1 - w) / 2, (y0 + y1 - h) / 2];
  return RINGS.flatMap((ring) => {
    const gap = ring * h + 2;
    const [above, below, left, right] = [y0 - h - gap, y1 + gap, x0 - w - gap, x1 + gap];
    return [
      [x0, above], [x1 - w, above], [middleX, above],
      [x0, below], [x1 - w, below], [middleX, below],
      [right, middleY], [left, middleY], [right, y0], [left, y0],
      [right, above], [left, above], [right, below], [left, below],
    ];
  });
}

function overlaps(a, b) {
  return a[0] < b[2] && b[0] < a[2] && a[1] < b[3] && b[1] < a[3];
}

// The shortest line from box to label, or null if they all but touch.
function leaderLine(box, area) {
  const [boxX, labelX] = nearest(box[0], box[2], area[0], area[2]);
  const [boxY, labelY] = nearest(box[1], box[3], area[1], area[3]);
  if (Math.max(Math.abs(boxX - labelX), Math.abs(boxY - labelY)) <= 3) return null;
  return [boxX, boxY, labelX, labelY];
}

function nearest(a0, a1, b0, b1) {
  if (a1 < b0) return [a1, b0];
  if (b1 < a0) return [a0, b1];
  const middle = (Math.max(a0, b0) + Math.min(a1, b1)) / 2;
  return [middle, middle];
}

function crosses([x0, y0, x1, y1], occupied) {
  for (let step = 1; step < 20; step += 1) {
    const [x, y] = [x0 + ((x1 - x0) * step) / 20, y0 + ((y1 - y0) * step) / 20];
    if (occupied.some((b) => x > b[0] && x < b[2] && y > b[1] && y < b[3])) return true;
  }
  return false;
}
