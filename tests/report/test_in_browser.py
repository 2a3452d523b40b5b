"""The report as a person uses it, in a browser; needs one, see :mod:`browser`."""

from pathlib import Path

import pytest

from efpn_d2.evaluation.error_analysis import Kind
from efpn_d2.report import ReportOptions, write_report
from tests.report.browser import INSTALL, Page, browser_page, find_browser
from tests.report.sample import HOSTILE_CLASS, HOSTILE_FILE
from tests.report.test_build import Outline, page_data

pytestmark = pytest.mark.skipif(find_browser() is None, reason=INSTALL)

TILES = "document.querySelectorAll('.tile').length"
DRAWN = "document.querySelectorAll('.tile svg g').length > 0"
OPEN = "document.getElementById('viewer').open"
LISTED = "document.querySelectorAll('#viewer-list li').length > 0"


@pytest.fixture(scope="module")
def browser(tmp_path_factory) -> Page:
    with browser_page(tmp_path_factory.mktemp("profile")) as page:
        yield page


@pytest.fixture(scope="module")
def folder(sample, tmp_path_factory) -> Path:
    output = tmp_path_factory.mktemp("single")
    write_report(sample.runs[:1], sample.annotations, sample.images, output)
    return output


@pytest.fixture(scope="module")
def pair_folder(sample, tmp_path_factory) -> Path:
    output = tmp_path_factory.mktemp("pair")
    options = ReportOptions(names=("first", "second"), max_images=25)
    write_report(sample.runs, sample.annotations, sample.images, output, options)
    return output


@pytest.fixture
def page(browser, folder):
    browser.requests.clear(), browser.problems.clear()
    browser.open((folder / "index.html").as_uri())
    yield browser
    assert browser.problems == []


@pytest.fixture
def pair(browser, pair_folder):
    browser.requests.clear(), browser.problems.clear()
    browser.open((pair_folder / "index.html").as_uri(), dark=True)
    yield browser
    assert browser.problems == []


def open_first(page: Page) -> None:
    page.wait(DRAWN)
    page.click(".tile")
    page.wait(LISTED)


def zoom(page: Page) -> float:
    return page.value("view.zoom")


def shown(page: Page) -> list[int]:
    """Numbers of the images on the page of tiles."""
    return page.value("[...document.querySelectorAll('.tile')].map((t) => +t.dataset.image)")


def test_it_loads_from_the_disk_and_asks_for_nothing_else(page, folder):
    page.wait(DRAWN)
    assert page.value(TILES) == 24 and page.value("report.images.length") == 30
    assert all(url.startswith((folder.as_uri(), "data:")) for url in page.requests)
    assert any("/boxes/0.js" in url for url in page.requests)
    assert page.value("document.querySelectorAll('svg.chart path').length") >= 8
    assert page.value("document.title") == "Detections on val"


def test_hostile_names_are_shown_as_text(page):
    page.wait(DRAWN)
    page.value("byId('filters').elements.text.value = 'onerror'; showGallery(0)")
    assert page.value("document.querySelector('.tile b').textContent") == HOSTILE_FILE
    page.click(".tile")
    page.wait(LISTED)
    assert page.value("byId('viewer-name').textContent") == HOSTILE_FILE
    assert page.value("document.querySelectorAll('img[onerror]').length") == 0
    assert page.value("document.title") == "Detections on val"


def test_filters_keep_the_images_that_have_such_errors(page, folder):
    data = page_data(folder)

    def holding(kind=None, size=None, class_index=None) -> set[int]:
        """Numbers of the images that the filters should leave."""
        kinds = {kind} if kind is not None else set(range(1, 7))
        return {
            number
            for number, image in enumerate(data["images"])
            for k, s, c, _ in zip(*[iter(image["items"][0])] * 4, strict=True)
            if k in kinds and size in (None, s) and class_index in (None, c)
        }

    page.choose("select[name=kind]", "duplicate")
    expected = holding(Kind.DUPLICATE)
    assert 0 < len(expected) < 24 and set(shown(page)) == expected
    page.choose("select[name=size]", "16 to 32 px")
    assert set(shown(page)) == holding(Kind.DUPLICATE, 2)
    page.choose("select[name=class]", "three")
    assert set(shown(page)) == holding(Kind.DUPLICATE, 2, 2)
    page.choose("select[name=kind]", "any")
    assert set(shown(page)) == holding(None, 2, 2)
    page.click("#filters button[type=reset]")
    page.wait(f"{TILES} === 24")
    page.click("#page-next")
    assert len(shown(page)) == 6
    assert page.value("byId('page-number').textContent") == "Page 2 of 2"


def test_wheel_zooms_at_the_pointer_down_to_pixels(page):
    open_first(page)
    before = zoom(page)
    x, y = page.center(".stage")
    area = page.value("(() => { const r = view.stages[0].stage.getBoundingClientRect();"
                      " return [r.x, r.y]; })()")  # fmt: skip
    at = f"[({x - 40 - area[0]} - view.x) / view.zoom, ({y - 30 - area[1]} - view.y) / view.zoom]"
    image_point = page.value(at)
    for _ in range(4):
        page.wheel(x - 40, y - 30, -300)
    page.wait(f"view.zoom > {before} * 2")
    assert page.value(at) == pytest.approx(image_point, abs=0.05)
    assert page.value("getComputedStyle(view.stages[0].picture).imageRendering") == "pixelated"
    transform = page.value("view.stages[0].picture.style.transform")
    assert f"scale({zoom(page):g}"[:9] in transform
    box = page.value("view.stages[0].svg.querySelector('rect').getAttribute('width') / view.zoom")
    first = page.value("imageMarks(view.data, 0, threshold(0)).at(-1).box")
    assert box == pytest.approx(first[2] - first[0], abs=0.02)


def test_keys_buttons_and_drag(page):
    open_first(page)
    fitted = zoom(page)
    page.press("+")
    assert zoom(page) == pytest.approx(1.5 * fitted)
    page.click("[data-action=out]")
    assert zoom(page) == pytest.approx(fitted)
    page.press("1")
    assert zoom(page) == pytest.approx(1)
    page.press("0")
    assert zoom(page) == pytest.approx(fitted)
    page.resize(1280, 600)
    page.wait(f"view.zoom < {0.8 * fitted}")
    page.resize(1280, 800)
    page.wait(f"view.zoom > {0.99 * fitted}")
    x, y = page.center(".stage")
    old = page.value("[view.x, view.y]")
    page.drag((x, y), (x + 30, y - 20))
    assert page.value("[view.x, view.y]") == pytest.approx([old[0] + 30, old[1] - 20])
    page.press("ArrowRight")
    assert page.value("view.x") == pytest.approx(old[0] - 30)
    page.press("e")
    first = page.value("imageMarks(view.data, 0, threshold(0))[0].box")
    middle = page.value("(view.stages[0].stage.clientWidth / 2 - view.x) / view.zoom")
    assert middle == pytest.approx((first[0] + first[2]) / 2, abs=0.01)
    name = page.value("byId('viewer-name').textContent")
    page.press("n")
    assert page.value("byId('viewer-name').textContent") != name
    page.press("p")
    assert page.value("byId('viewer-name').textContent") == name
    page.press("Escape")
    page.wait(f"!{OPEN}")


def test_labels_hide_no_object(page):
    open_first(page)
    page.wait("document.querySelectorAll('.stage .label').length > 0")
    for _ in range(3):
        labels, boxes = page.value(
            "[[...document.querySelectorAll('.stage .label rect[rx]')],"
            " [...document.querySelectorAll('.stage svg > g:not(.label) rect')]]"
            ".map((all) => all.map((r) => ['x', 'y', 'width', 'height']"
            ".map((key) => Number(r.getAttribute(key)))))"
        )
        assert labels
        for x, y, w, h in labels:
            for bx, by, bw, bh in boxes:
                assert x + w <= bx or bx + bw <= x or y + h <= by or by + bh <= y
        page.press("+")
    page.press("l")
    assert page.value("document.querySelectorAll('.stage .label').length") == 0


def test_score_slider_hides_and_brings_back_detections(page):
    open_first(page)
    slider = "byId('viewer-score')"
    move = f"(v) => {{ {slider}.value = v; {slider}.dispatchEvent(new Event('input')); }}"
    found = "imageMarks(view.data, 0, threshold(0)).filter((m) => m.status !== 'missed').length"
    page.value(f"({move})(0)")
    everything = page.value(found)
    page.value(f"({move})(1)")
    assert page.value(found) == 0 < everything
    assert page.value("imageMarks(view.data, 0, 1).every((m) => m.status === 'missed')")


def test_classes_can_be_sorted(page):
    cells = "document.querySelectorAll('[data-table=classes] tbody th')"
    first_column = f"[...{cells}].map((cell) => cell.textContent)"
    page.click("[data-table=classes] thead th:nth-child(3)")
    numbers = page.value(
        "[...document.querySelectorAll('[data-table=classes] tbody tr')]"
        ".map((row) => Number(row.cells[2].dataset.value))"
    )
    assert numbers == sorted(numbers, reverse=True)
    page.click("[data-table=classes] thead th:nth-child(1)")
    assert page.value(first_column) == [HOSTILE_CLASS, "one", "three"]
    page.press("Enter")
    assert page.value(first_column) == ["three", "one", HOSTILE_CLASS]


def test_the_class_table_fits_and_a_wider_one_scrolls_beside_its_names(page, pair_folder):
    find = "document.querySelector('[data-table=classes]')"
    wider = f"{find}.parentNode.scrollWidth - {find}.parentNode.clientWidth"
    page.resize(1400, 900)
    assert page.value(wider) <= 0
    page.open((pair_folder / "index.html").as_uri(), 1000, 900)
    assert page.value(wider) > 0
    name = f"Math.round({find}.tBodies[0].rows[0].cells[0].getBoundingClientRect().left)"
    before = page.value(name)
    page.value(f"{find}.parentNode.scrollLeft = 300")
    assert page.value(f"{find}.parentNode.scrollLeft") > 0
    assert page.value(name) == before
    assert page.value("document.documentElement.scrollWidth") <= 1000


@pytest.mark.parametrize(
    ("ends", "ticks"),
    [
        ((4, 150), [4, 8, 16, 32, 64, 128]),
        ((0.5, 3000), [1, 4, 16, 64, 256, 1024]),
        ((10, 40), [12, 16, 24, 32]),
        ((20, 31), [20, 25, 30]),
    ],
)
def test_ticks_of_sizes_are_doublings_or_close(page, ends, ticks):
    low, high = ends
    assert page.value(f"sizeTicks({low}, {high})") == ticks


def test_ticks_of_counts(page):
    assert page.value("countTicks(1.1)") == [0, 1]
    assert page.value("countTicks(66)") == [0, 1, 2, 5, 10, 20, 50]
    assert page.value("countTicks(2200)") == [0, 1, 10, 100, 1000]


def test_two_runs_move_together_and_curves_follow_the_menu(pair, pair_folder):
    pair.wait(DRAWN)
    assert pair.value("document.querySelectorAll('#chart-accuracy path').length") == 2
    before = pair.value("document.querySelector('#chart-accuracy path').getAttribute('d')")
    pair.choose("#curve-selection", "class three")
    assert pair.value("document.querySelector('#chart-accuracy path').getAttribute('d')") != before
    open_first(pair)
    assert pair.value("document.querySelectorAll('.stage img').length") == 2
    pair.press("+")
    transforms = pair.value("view.stages.map((s) => s.picture.style.transform)")
    assert transforms[0] == transforms[1]
    counts = pair.value("report.runs.map((_, r) => imageMarks(view.data, r, threshold(r)).length)")
    assert counts[0] != counts[1]
    pair.press("Escape")
    pair.choose("select[name=order]", "most newly lost first")
    lost = [page_data(pair_folder)["images"][number]["change"][1] for number in shown(pair)]
    assert lost == sorted(lost, reverse=True) and lost[0] > 0


def test_what_only_one_run_found_can_be_filtered(pair, pair_folder):
    pair.choose("select[name=kind]", "found by one run only")
    pair.choose("select[name=run]", "first")
    pair.choose("select[name=order]", "most matches first")
    lost = [page_data(pair_folder)["images"][number]["change"][1] for number in shown(pair)]
    assert lost == sorted(lost, reverse=True) and lost[-1] > 0
    open_first(pair)
    only = "imageMarks(view.data, 0, threshold(0)).filter((mark) => mark.only).length"
    assert pair.value(only) == lost[0]
    elsewhere = "imageMarks(view.data, 1, threshold(1)).filter((mark) => mark.elsewhere)"
    assert pair.value(f"new Set({elsewhere}.map((mark) => mark.object)).size") <= lost[0]
    assert pair.value("byId('viewer-list').textContent.includes('only here')")
    pair.press("Escape")


def test_an_image_without_picture_still_shows_its_boxes(pair, pair_folder):
    data = page_data(pair_folder)
    bare = next(n for n, i in enumerate(data["images"]) if "file" not in i and i["items"][0])
    pair.value(f"openViewer({bare})")
    pair.wait(LISTED)
    assert pair.value("document.querySelectorAll('.stage .blank').length") == 2
    assert "picture not in this report" in pair.value("byId('stages').textContent")
    assert pair.value("view.stages[0].svg.querySelectorAll('g').length") > 0
    pair.press("Escape")


def test_an_image_can_be_linked_to(browser, folder):
    browser.problems.clear()
    browser.open((folder / "index.html").as_uri() + "#image-2")
    # A change of the part after "#" alone loads nothing anew.
    browser.send("Page.reload")
    browser.wait(f"document.documentElement?.dataset.ready === 'true' && {OPEN}")
    name = page_data(folder)["images"][2]["name"]
    assert browser.value("byId('viewer-name').textContent") == name
    browser.press("Escape")
    browser.wait("window.location.hash === '#gallery'")
    assert browser.problems == []


def test_the_error_bars_are_the_error_table(page, folder):
    rows = Outline((folder / "index.html").read_text()).tables["errors"]
    expected = {
        row[0]: sum(map(int, row[2:])) for row in rows[2:]
    }  # found is no error; the first row is of all sizes
    bars = page.value(
        "[...document.querySelectorAll('.bar-row')].map((r) => [r.children[0].textContent,"
        " parseInt(r.children[2].textContent.replace(',', ''))])"
    )
    assert dict(bars) == expected
