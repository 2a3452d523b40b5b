// One image, zoomable to its pixels; two runs side by side move together.

const MOST_ZOOM = 64;
const LABEL_HEIGHT = 17;
const view = { number: null, data: null, x: 0, y: 0, zoom: 1, stages: [], focus: null };

async function openViewer(number) {
  const image = report.images[number];
  view.number = number;
  view.focus = null;
  const viewer = byId("viewer");
  if (!viewer.open) {
    viewer.showModal();
    byId("viewer-score").value = report.runs[0].threshold;
    view.touched = false;
    byId("stages").focus();
  }
  byId("viewer-name").textContent = image.name;
  history.replaceState(null, "", `#image-${number}`);
  makeStages(image);
  view.data = null;
  fitView();
  try {
    view.data = await loadBoxes(number);
  } catch (error) {
    byId("viewer-name").textContent = error.message;
    return;
  }
  if (view.number !== number) return;
  listMarks();
  drawView();
}

function makeStages(image) {
  const [width, height] = image.size;
  const host = byId("stages");
  host.replaceChildren();
  view.stages = report.runs.map((run) => {
    const stage = make(host, "div", { class: "stage" });
    const picture = image.file
      ? make(stage, "img", { src: image.file, alt: image.name, draggable: "false" })
      : make(stage, "div", { class: "blank" });
    picture.style.width = `${width}px`;
    picture.style.height = `${height}px`;
    const svg = make(stage, "svg", { "aria-hidden": "true" });
    const captions = [comparing ? run.name : "", image.file ? "" : "picture not in this report"];
    const caption = captions.filter(Boolean).join(", ");
    if (caption) make(stage, "span", { class: "caption" }, caption);
    listenToPointer(stage);
    return { stage, picture, svg };
  });
}

function threshold(run) {
  return view.touched ? Number(byId("viewer-score").value) : report.runs[run].threshold;
}

function fitView() {
  const [width, height] = report.images[view.number].size;
  const { stage } = view.stages[0];
  view.zoom = Math.min((stage.clientWidth - 20) / width, (stage.clientHeight - 20) / height, MOST_ZOOM);
  view.x = (stage.clientWidth - width * view.zoom) / 2;
  view.y = (stage.clientHeight - height * view.zoom) / 2;
  view.fitted = { x: view.x, y: view.y, zoom: view.zoom };
  drawView();
}

// A new window size: what was fitted stays so, and anything else stays where it is.
function refitView() {
  const same = ["x", "y", "zoom"].every((key) => view[key] === view.fitted[key]);
  if (same) fitView();
  else drawView();
}

// Zoom by a factor, the image point at (x, y) of the stage staying where it is.
function zoomBy(factor, x = null, y = null) {
  const { stage } = view.stages[0];
  const [atX, atY] = [x ?? stage.clientWidth / 2, y ?? stage.clientHeight / 2];
  const zoom = Math.min(Math.max(view.zoom * factor, 0.02), MOST_ZOOM);
  view.x = atX - ((atX - view.x) * zoom) / view.zoom;
  view.y = atY - ((atY - view.y) * zoom) / view.zoom;
  view.zoom = zoom;
  drawView();
}

function moveBy(x, y) {
  view.x += x;
  view.y += y;
  drawView();
}

// Bring a box to the middle, large enough to see its pixels.
function goTo(mark) {
  const [x0, y0, x1, y1] = mark.box;
  const { stage } = view.stages[0];
  const side = Math.max(x1 - x0, y1 - y0, 1);
  const room = Math.min(stage.clientWidth, stage.clientHeight);
  view.zoom = Math.min(Math.max(view.zoom, (0.35 * room) / side), 0.8 * (room / side), MOST_ZOOM);
  view.x = stage.clientWidth / 2 - ((x0 + x1) / 2) * view.zoom;
  view.y = stage.clientHeight / 2 - ((y0 + y1) / 2) * view.zoom;
  drawView();
}

function drawView() {
  byId("viewer-zoom").textContent = `${Math.round(view.zoom * 100)}%`;
  byId("viewer-score-value").textContent = view.touched
    ? threshold(0).toFixed(2)
    : report.runs.map((_, r) => threshold(r).toFixed(2)).join(" / ");
  view.stages.forEach(({ stage, picture, svg }, run) => {
    stage.classList.toggle("pixelated", view.zoom > 1);
    picture.style.transform = `translate(${view.x}px, ${view.y}px) scale(${view.zoom})`;
    svg.replaceChildren();
    if (view.data) drawMarks(svg, stage, run);
  });
}

function drawMarks(svg, stage, run) {
  const wanted = filters();
  const marks = imageMarks(view.data, run, threshold(run), byId("viewer-truth").checked);
  const place = ([x0, y0, x1, y1]) => [
    view.x + x0 * view.zoom, view.y + y0 * view.zoom,
    view.x + x1 * view.zoom, view.y + y1 * view.zoom,
  ];
  const boxes = marks.map((mark) => place(mark.box));
  const important = marks.map((mark) => markMatches(mark, wanted));
  for (let i = marks.length - 1; i >= 0; i -= 1) drawBox(svg, boxes[i], marks[i], !important[i]);
  if (!byId("viewer-labels").checked) return;
  const labelled = marks
    .map((mark, i) => ({ mark, box: boxes[i], height: LABEL_HEIGHT }))
    .filter(({ mark, box }, i) => important[i] && isVerdict(mark) && inStage(box, stage));
  const ruler = make(svg, "text");
  for (const label of labelled) {
    const texts = new Set([label.mark.text, label.mark.short ?? label.mark.text]);
    label.texts = [...texts].map((text) => ({ text, width: textWidth(ruler, text) + 9 }));
  }
  ruler.remove();
  const places = placeLabels(boxes, labelled, stage.clientWidth, stage.clientHeight);
  labelled.forEach((label, i) => drawLabel(svg, label.mark, places[i]));
}

const textWidths = new Map(); // measuring makes the browser lay the page out anew

function textWidth(ruler, text) {
  if (!textWidths.has(text)) {
    ruler.textContent = text;
    textWidths.set(text, ruler.getComputedTextLength());
  }
  return textWidths.get(text);
}

function inStage([x0, y0, x1, y1], stage) {
  return x1 > 0 && y1 > 0 && x0 < stage.clientWidth && y0 < stage.clientHeight;
}

function drawLabel(svg, mark, place) {
  if (!place) return;
  const { width } = place;
  const height = LABEL_HEIGHT;
  const color = STATUS_COLORS[mark.status];
  const group = make(svg, "g", { class: "label" });
  if (place.leader) {
    const [x1, y1, x2, y2] = place.leader;
    make(group, "line", { x1, y1, x2, y2, stroke: "#000", "stroke-opacity": 0.6, "stroke-width": 3 });
    make(group, "line", { x1, y1, x2, y2, stroke: color });
  }
  make(group, "rect", { x: place.x, y: place.y, width, height, rx: 3, fill: "#000", "fill-opacity": 0.78 });
  make(group, "rect", { x: place.x, y: place.y, width: 3, height, fill: color });
  make(group, "text", { x: place.x + 6, y: place.y + 12.5, fill: "#fff" }, place.text);
}

// The list beside the image; a click brings the box to the middle.
function listMarks() {
  const host = byId("viewer-list");
  host.replaceChildren();
  const wanted = filters();
  report.runs.forEach((run, r) => {
    const marks = imageMarks(view.data, r, threshold(r)).filter(
      (mark) => isVerdict(mark) && markMatches(mark, wanted),
    );
    const errors = marks.filter((mark) => mark.status !== "found").length;
    const name = comparing ? `${run.name}: ` : "";
    make(host, "h3", {}, `${name}${plural(errors, "error")}, ${marks.length - errors} found`);
    const list = make(host, "ul");
    for (const mark of marks) {
      const button = make(make(list, "li"), "button", { type: "button" });
      key(button, mark.text, STATUS_COLORS[mark.status]);
      const overlap = mark.iou ? `, IoU ${mark.iou.toFixed(2)}` : "";
      const other = mark.elsewhere ? `, found by ${report.runs[1 - r].name}` : "";
      make(button, "small", {}, ` ${mark.size.toFixed(1)} px${overlap}${other}`);
      button.addEventListener("click", () => goTo(mark));
    }
  });
}

// The next error, or the next of what the filters ask for.
function nextError() {
  if (!view.data) return;
  const wanted = filters();
  const statuses = ["missed", "false"];
  if (["found", ONLY_HERE].includes(wanted.kind)) statuses.push("found");
  const marks = report.runs
    .flatMap((_, r) => imageMarks(view.data, r, threshold(r)))
    .filter((mark) => statuses.includes(mark.status) && markMatches(mark, wanted));
  if (!marks.length) return;
  view.focus = view.focus === null ? 0 : (view.focus + 1) % marks.length;
  goTo(marks[view.focus]);
}

function stepImage(step) {
  const at = state.order.indexOf(view.number) + step;
  if (at >= 0 && at < state.order.length) openViewer(state.order[at]);
}
