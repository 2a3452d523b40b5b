// The overview of the images: filters, order, pages of tiles.

const PAGE = 24;
const state = { page: 0, order: [], shown: 0 };

function setUpGallery() {
  const form = byId("filters");
  const any = [["", "any"]];
  fillSelect(form.elements.kind, [...any, ["error", "any error"], ...kindChoices()]);
  fillSelect(form.elements.size, [...any, ...report.bins.map((bin, b) => [String(b), bin])]);
  fillSelect(form.elements.class, [...any, ...report.classes.map((name, k) => [String(k), name])]);
  const runs = report.runs.map((run, r) => [String(r), run.name]);
  fillSelect(form.elements.run, [["", "either run"], ...runs]);
  byId("run-filter").hidden = !comparing;
  byId("tiles").classList.toggle("pairs", comparing);
  const orders = comparing
    ? [["change", "most changed first"], ["gained", "most newly found first"], ["lost", "most newly lost first"]]
    : [];
  fillSelect(form.elements.order, [...orders, ["errors", "most matches first"], ["name", "file name"]]);
  form.addEventListener("input", () => showGallery(0));
  form.addEventListener("submit", (event) => event.preventDefault());
  form.addEventListener("reset", () => setTimeout(() => showGallery(0)));
  byId("page-back").addEventListener("click", () => turnPage(-1));
  byId("page-next").addEventListener("click", () => turnPage(1));
  showGallery(0);
}

function kindChoices() {
  const choices = SHOWN_KINDS.map((kind) => [kind, kind]);
  return comparing ? [...choices, [ONLY_HERE, "found by one run only"]] : choices;
}

function filters() {
  const form = byId("filters").elements;
  const number = (name) => (form[name].value === "" ? null : Number(form[name].value));
  return {
    kind: form.kind.value,
    size: number("size"),
    classIndex: number("class"),
    run: number("run"),
    order: form.order.value,
    text: form.text.value.trim().toLowerCase(),
  };
}

function kindMatches(kind, wanted) {
  if (wanted === "error") return ERROR_KINDS.includes(kind);
  return wanted === "" || kind === wanted;
}

// How many detections and objects of an image fit the filters; without any, its errors.
function countMatches(image, wanted) {
  const open = wanted.kind === "" ? "error" : wanted.kind;
  let sum = 0;
  image.items.forEach((items, run) => {
    if (wanted.run !== null && wanted.run !== run) return;
    for (let i = 0; i < items.length; i += 4) {
      const fits =
        kindMatches(report.kinds[items[i]], open) &&
        (wanted.size === null || items[i + 1] === wanted.size) &&
        (wanted.classIndex === null || items[i + 2] === wanted.classIndex);
      if (fits) sum += items[i + 3];
    }
  });
  return sum;
}

function showGallery(page) {
  const wanted = filters();
  const narrowed = wanted.kind !== "" || wanted.size !== null || wanted.classIndex !== null;
  const matches = report.images.map((image) => countMatches(image, wanted));
  const keep = (i) =>
    (!narrowed || matches[i] > 0) && report.images[i].name.toLowerCase().includes(wanted.text);
  const order = [...report.images.keys()].filter(keep);
  const change = (i) => report.images[i].change;
  const by = {
    errors: (a, b) => matches[b] - matches[a] || a - b,
    name: (a, b) => (report.images[a].name < report.images[b].name ? -1 : 1),
    change: (a, b) => a - b,
    gained: (a, b) => change(b)[0] - change(a)[0] || a - b,
    lost: (a, b) => change(b)[1] - change(a)[1] || a - b,
  };
  state.order = order.sort(by[wanted.order]);
  state.matches = matches;
  state.page = Math.min(page, Math.max(0, Math.ceil(order.length / PAGE) - 1));
  const pictures = order.filter((i) => report.images[i].file).length;
  const of = `${plural(order.length, "image")} of ${report.images.length.toLocaleString("en")}`;
  byId("gallery-count").textContent = `${of}, ${pictures.toLocaleString("en")} of them with picture`;
  const last = Math.max(1, Math.ceil(order.length / PAGE));
  byId("page-number").textContent = `Page ${state.page + 1} of ${last}`;
  byId("page-back").disabled = state.page === 0;
  byId("page-next").disabled = state.page + 1 >= last;
  const tiles = byId("tiles");
  tiles.replaceChildren();
  order.slice(state.page * PAGE, (state.page + 1) * PAGE).forEach((i) => addTile(tiles, i));
}

function turnPage(step) {
  showGallery(state.page + step);
  byId("gallery").scrollIntoView();
}

function addTile(tiles, number) {
  const image = report.images[number];
  const tile = make(tiles, "button", { type: "button", class: "tile", "data-image": number });
  const pictures = make(tile, "span", { class: "pictures" });
  const overlays = report.runs.map(() => {
    const picture = make(pictures, "span", { class: "picture" });
    if (image.thumb) {
      const small = image.size[0] < 300 && image.size[1] < 300;
      const attributes = { src: image.thumb, loading: "lazy", alt: "", class: small ? "small" : null };
      make(picture, "img", attributes);
    }
    return make(picture, "svg", { viewBox: `0 0 ${image.size.join(" ")}`, "aria-hidden": "true" });
  });
  const text = make(tile, "span", { class: "text" });
  make(text, "b", { title: image.name }, image.name);
  make(text, "span", {}, tileText(number));
  tile.addEventListener("click", () => openViewer(number));
  drawTile(overlays, number);
}

function tileText(number) {
  const image = report.images[number];
  const wanted = filters();
  const what = wanted.kind === "" || wanted.kind === "error" ? "error" : wanted.kind;
  const count = state.matches[number];
  const parts = [what === "error" ? plural(count, "error") : `${count.toLocaleString("en")} ${what}`];
  if (what === ONLY_HERE) parts.pop();
  if (comparing) parts.push(`${image.change[0]} newly found, ${image.change[1]} lost`);
  if (!image.file) parts.push("no picture");
  return parts.join("; ");
}

async function drawTile(overlays, number) {
  const wanted = filters();
  try {
    const data = await loadBoxes(number);
    overlays.forEach((svg, run) => {
      for (const mark of imageMarks(data, run, report.runs[run].threshold).reverse()) {
        drawBox(svg, mark.box, mark, !markMatches(mark, wanted));
      }
    });
  } catch (error) {
    byId("gallery-count").textContent = error.message;
  }
}

function sizeBin(size) {
  return report.edges.findLastIndex((edge) => size >= edge);
}

// Whether the filters ask for a box; those that they do not ask for are drawn faintly.
function markMatches(mark, wanted) {
  const kind = mark.kind ?? (mark.status === "missed" ? "missed" : "found");
  return (
    (wanted.kind === ONLY_HERE ? mark.only : kindMatches(kind, wanted.kind)) &&
    (wanted.size === null || sizeBin(mark.size) === wanted.size) &&
    (wanted.classIndex === null || mark.classIndex === wanted.classIndex)
  );
}
