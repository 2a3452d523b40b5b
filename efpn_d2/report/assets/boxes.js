// The boxes of the images: loaded some images at a time, and what is drawn of them.

const chunks = new Map(); // number of a file -> { promise, resolve }

// What the files of boxes call.
window.reportBoxes = (number, images) => chunks.get(number).resolve(images);

// The {objects, runs} of an image. A script element, for a page from the disk may not fetch.
async function loadBoxes(image) {
  const number = Math.floor(image / report.chunk);
  if (!chunks.has(number)) {
    const chunk = {};
    chunk.promise = new Promise((resolve, reject) => {
      chunk.resolve = resolve;
      const script = document.createElement("script");
      script.src = `boxes/${number}.js`;
      script.onerror = () => reject(new Error(`boxes/${number}.js is missing beside the page`));
      document.head.append(script);
    });
    chunks.set(number, chunk);
  }
  return (await chunks.get(number).promise)[image % report.chunk];
}

// What to draw of a run: {box, status, kind, classIndex, sizeBin, score, object, text}, missed
// objects first, then false detections, then right ones; all by score.
function imageMarks(data, run, threshold, withTruth = false) {
  const detections = data.runs[run].filter((d) => d[5] >= threshold && d[6] !== KIND.ignored);
  const found = new Set(detections.filter((d) => d[6] === KIND.found).map((d) => d[7]));
  const failed = new Map();
  for (const d of detections) {
    const covers = d[6] === KIND.classification || d[6] === KIND.localisation;
    if (covers && !failed.has(d[7])) failed.set(d[7], d);
  }
  const missed = [];
  const truth = [];
  data.objects.forEach((object, number) => {
    if (object[6]) {
      truth.push(objectMark(object, number, "crowd", "crowd region", null));
    } else if (!found.has(number)) {
      const as = failed.get(number);
      // The error at it already says what became of the object.
      if (as) truth.push(objectMark(object, number, "covered", "object", report.kinds[as[6]]));
      else missed.push(objectMark(object, number, "missed", "missed", "missed"));
    } else {
      truth.push(objectMark(object, number, "truth", "object", null));
    }
  });
  const elsewhere = comparing ? foundObjects(data, 1 - run) : null;
  const marks = detections.map((d) => detectionMark(d, data.objects));
  for (const mark of [...missed, ...marks]) {
    const byOther = elsewhere?.has(mark.object);
    mark.only = comparing && mark.status === "found" && !byOther;
    if (mark.only) mark.text += ` · ${ONLY_HERE}`;
    mark.elsewhere = byOther && mark.status !== "found" && !found.has(mark.object);
  }
  const wrong = marks.filter((mark) => mark.status === "false");
  const right = marks.filter((mark) => mark.status === "found");
  const others = truth.filter((mark) => withTruth || mark.status === "covered");
  return [...missed, ...wrong, ...right, ...others];
}

// The objects that a run found, by their numbers.
function foundObjects(data, run) {
  const least = byId("viewer").open ? threshold(run) : report.runs[run].threshold;
  const found = data.runs[run].filter((d) => d[5] >= least && d[6] === KIND.found);
  return new Set(found.map((d) => d[7]));
}

// Whether a mark has a label, and a line in the list.
function isVerdict(mark) {
  return ["missed", "false", "found"].includes(mark.status);
}

function objectMark(object, number, status, how, kind) {
  const [x0, y0, x1, y1, classIndex, size] = object;
  const text = `${how}: ${report.classes[classIndex]}`;
  return { box: [x0, y0, x1, y1], status, kind, classIndex, size, object: number, score: null, text };
}

function detectionMark([x0, y0, x1, y1, classIndex, score, kind, object, iou], objects) {
  const name = report.kinds[kind];
  const status = name === "found" ? "found" : "false";
  const short = `${report.classes[classIndex]} ${score.toFixed(2)}`;
  const own = Math.sqrt(Math.max(0, x1 - x0) * Math.max(0, y1 - y0));
  const size = object < 0 ? own : objects[object][5];
  let text = short;
  if (status === "false") text += ` · ${name}`;
  if (name === "classification" || name === "both") text += `, is ${report.classes[objects[object][4]]}`;
  return { box: [x0, y0, x1, y1], status, kind: name, classIndex, size, object, iou, score, text, short };
}

const STATUS_COLORS = {
  found: "#56b4e9", false: "#ff9f1c", missed: "#ff7ac6", covered: "#ffffff", truth: "#ffffff", crowd: "#b0b7c0",
};
const STATUS_DASHES = { missed: "5 3", covered: "2 3", truth: "2 3", crowd: "8 4" };
const STATUS_NAMES = { found: "found", false: "false detection", missed: "missed object", truth: "other object" };

// A box with a dark rim, to be seen on any ground; lines keep their width at any zoom.
function drawBox(svg, [x, y, right, bottom], mark, faint) {
  const shape = {
    x, y, width: Math.max(right - x, 0), height: Math.max(bottom - y, 0), fill: "none", "pointer-events": "all",
  };
  const group = make(svg, "g", { opacity: faint ? 0.25 : null });
  make(group, "title", {}, mark.text);
  const still = { "vector-effect": "non-scaling-stroke" };
  make(group, "rect", { ...shape, ...still, stroke: "#000", "stroke-opacity": 0.65, "stroke-width": 3.5 });
  make(group, "rect", {
    ...shape,
    ...still,
    stroke: STATUS_COLORS[mark.status],
    "stroke-width": 1.75,
    "stroke-dasharray": STATUS_DASHES[mark.status] ?? null,
  });
  return group;
}
