// What the viewer does when keys are pressed and pointers move; then the page is set up.

function listenToPointer(stage) {
  stage.addEventListener(
    "wheel",
    (event) => {
      event.preventDefault();
      const area = stage.getBoundingClientRect();
      const factor = Math.exp(-event.deltaY * (event.deltaMode ? 0.05 : 0.002));
      zoomBy(factor, event.clientX - area.left, event.clientY - area.top);
    },
    { passive: false },
  );
  stage.addEventListener("pointerdown", (event) => {
    event.preventDefault();
    stage.setPointerCapture(event.pointerId);
  });
  stage.addEventListener("pointermove", (event) => {
    if (stage.hasPointerCapture(event.pointerId)) moveBy(event.movementX, event.movementY);
  });
  stage.addEventListener("dblclick", (event) => {
    const area = stage.getBoundingClientRect();
    zoomBy(2, event.clientX - area.left, event.clientY - area.top);
  });
}

const ACTIONS = {
  in: () => zoomBy(1.5),
  out: () => zoomBy(1 / 1.5),
  fit: fitView,
  one: () => zoomBy(1 / (view.zoom * window.devicePixelRatio)),
  back: () => stepImage(-1),
  next: () => stepImage(1),
  close: () => byId("viewer").close(),
  error: nextError,
  labels: () => byId("viewer-labels").click(),
  truth: () => byId("viewer-truth").click(),
  left: () => moveBy(60, 0),
  right: () => moveBy(-60, 0),
  up: () => moveBy(0, 60),
  down: () => moveBy(0, -60),
};

const KEYS = {
  "+": "in", "=": "in", "-": "out", 0: "fit", 1: "one", n: "next", p: "back", e: "error",
  l: "labels", g: "truth", ArrowLeft: "left", ArrowRight: "right", ArrowUp: "up", ArrowDown: "down",
};

function setUpViewer() {
  const viewer = byId("viewer");
  for (const button of viewer.querySelectorAll("[data-action]")) {
    button.addEventListener("click", () => ACTIONS[button.dataset.action]());
  }
  viewer.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.target.type === "range" && event.key.startsWith("Arrow")) return;
    const action = KEYS[event.key.length === 1 ? event.key.toLowerCase() : event.key];
    if (!action) return;
    event.preventDefault();
    ACTIONS[action]();
  });
  byId("viewer-score").addEventListener("input", () => {
    view.touched = true;
    listMarks();
    drawView();
  });
  for (const id of ["viewer-labels", "viewer-truth"]) byId(id).addEventListener("change", drawView);
  window.addEventListener("resize", () => {
    if (viewer.open) refitView();
  });
  viewer.addEventListener("close", () => history.replaceState(null, "", "#gallery"));
  for (const [status, name] of Object.entries(STATUS_NAMES)) {
    const dashes = STATUS_DASHES[status] ? "dashed" : "solid";
    const entry = make(byId("viewer-legend"), "span", { class: "swatch" }, name);
    entry.style.setProperty("--line", `2px ${dashes} ${STATUS_COLORS[status]}`);
  }
}

function setUpTables() {
  for (const heading of document.querySelectorAll('[data-table="classes"] thead th')) {
    heading.tabIndex = 0;
    heading.addEventListener("click", () => sortTable(heading));
    heading.addEventListener("keydown", (event) => {
      if (event.key === "Enter") sortTable(heading);
    });
  }
  for (const mark of document.querySelectorAll("[data-kind]")) {
    mark.style.setProperty("--own", kindColor(mark.dataset.kind));
  }
}

// Names from A to Z first, numbers from the largest; rows without a number stay at the end.
function sortTable(heading) {
  const body = heading.closest("table").tBodies[0];
  const column = heading.cellIndex;
  const before = heading.getAttribute("aria-sort");
  const down = before === null ? column > 0 : before === "ascending";
  for (const other of heading.parentNode.cells) other.removeAttribute("aria-sort");
  heading.setAttribute("aria-sort", down ? "descending" : "ascending");
  const number = (row) => Number(row.cells[column].dataset.value ?? NaN);
  const compare = (a, b) => {
    const [x, y] = [number(a), number(b)];
    if (Number.isNaN(x) !== Number.isNaN(y)) return Number.isNaN(x) ? 1 : -1;
    const names = a.cells[0].textContent.localeCompare(b.cells[0].textContent);
    const order = (Number.isNaN(x) ? names : x - y) || names;
    return down ? -order : order;
  };
  body.append(...[...body.rows].sort(compare));
}

function setUpTheme() {
  byId("theme").addEventListener("click", () => {
    const root = document.documentElement;
    const dark = window.matchMedia("(prefers-color-scheme: dark)").matches;
    const now = root.dataset.theme ?? (dark ? "dark" : "light");
    root.dataset.theme = now === "dark" ? "light" : "dark";
  });
}

const choices = byId("curve-selection");
fillSelect(choices, curveChoices());
choices.addEventListener("change", () => drawCurves(choices.value));
drawHeadline();
drawCurves(choices.value);
drawSizeRecall();
drawErrorBars();
drawConfusion();
drawConfusedPairs();
setUpTables();
setUpTheme();
setUpGallery();
setUpViewer();
const linked = window.location.hash.match(/^#image-(\d+)$/);
if (linked && report.images[Number(linked[1])]) openViewer(Number(linked[1]));
document.documentElement.dataset.ready = "true";
