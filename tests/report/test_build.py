import json
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path

import pytest

from efpn_d2.error_analysis.summary import rates, select
from efpn_d2.error_analysis.verdicts import Kind
from efpn_d2.evaluation.coco_arrays import load_ground_truth
from efpn_d2.report import REPORT_RULES, ReportOptions, write_report
from efpn_d2.report.build import run_names
from efpn_d2.report.run import load_run
from tests.report.sample import HOSTILE_CLASS, HOSTILE_FILE

pytestmark = pytest.mark.fast


class Outline(HTMLParser):
    """Rows of each table by its name, ids, and everything that a browser would load."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tables, self.ids, self.loads, self.scripts = {}, [], [], 0
        self._rows, self._cell = None, None
        self.feed(html)

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        if "id" in attributes:
            self.ids.append(attributes["id"])
        self.loads += [v for k, v in attributes.items() if k in ("src", "href")]
        self.scripts += tag == "script"
        if tag == "table":
            self._rows = self.tables[attributes["data-table"]] = []
        elif tag == "tr":
            self._rows.append([])
        elif tag in ("td", "th"):
            self._cell = ""

    def handle_data(self, data):
        if self._cell is not None:
            self._cell += data

    def handle_endtag(self, tag):
        if tag in ("td", "th"):
            self._rows[-1].append(self._cell)
            self._cell = None


@pytest.fixture(scope="module")
def report(sample, tmp_path_factory) -> Path:
    output = tmp_path_factory.mktemp("report")
    write_report(sample.runs[:1], sample.annotations, sample.images, output)
    return output


@pytest.fixture(scope="module")
def comparison(sample, tmp_path_factory) -> Path:
    output = tmp_path_factory.mktemp("comparison")
    options = ReportOptions(title="<b>Title", names=("<i>first", "second"), max_images=5)
    write_report(sample.runs, sample.annotations, sample.images, output, options)
    return output


def page_data(folder: Path) -> dict:
    html = (folder / "index.html").read_text()
    return json.loads(re.search(r'id="report-data">(.*?)</script>', html).group(1))


def image_boxes(folder: Path, number: int, chunk: int) -> dict:
    text = (folder / "boxes" / f"{number // chunk}.js").read_text()
    head, body = text.split(",", 1)
    assert head == f"reportBoxes({number // chunk}"
    return json.loads(body.removesuffix(");\n"))[number % chunk]


def test_tables_hold_the_numbers_of_the_core(report, sample):
    truth = load_ground_truth(sample.annotations)
    run = load_run("run", sample.runs[0], truth, REPORT_RULES["small"])
    tables = Outline((report / "index.html").read_text()).tables
    head, everything, *bins = tables["sizes"]
    rate = rates(run.analysis, select(run.analysis), run.threshold)
    row = dict(zip(head, everything, strict=True))
    assert row["size"] == "all sizes" and row["objects"] == f"{rate.objects}"
    assert row["AP"] == f"{run.result.metrics()['AP']:.1f}"
    assert row["AP50"] == f"{run.result.metrics()['AP50']:.1f}"
    assert row["F1"] == f"{100 * rate.f1:.1f}"
    small = rates(run.analysis, select(run.analysis, 8, 16), run.threshold)
    assert bins[1][:2] == ["8 to 16 px", f"{small.objects}"]
    assert bins[1][-2] == f"{100 * small.recall:.1f}"
    assert bins[4] == ["96 px and more", "0", *["n/a (0 objects)"] * 7]
    head, *classes = tables["classes"]
    assert [name for name, *_ in classes] == ["one", HOSTILE_CLASS, "three"]
    assert sum(int(count) for _, count, *_ in classes) == rate.objects
    head, everything, *_ = tables["errors"]
    row = dict(zip(head, everything, strict=True))
    assert int(row["found"]) == rate.true_positives
    false = ("background", "classification", "localisation", "both", "duplicate")
    assert sum(int(row[kind]) for kind in false) == rate.false_positives


def test_differences_are_second_minus_first(comparison):
    tables = Outline((comparison / "index.html").read_text()).tables
    _, first, second, difference, *_ = tables["sizes"]
    assert (first[1], second[1], difference[1]) == ("<i>first", "second", "difference")
    for a, b, change in zip(first[3:], second[3:], difference[3:], strict=True):
        assert float(change) == pytest.approx(float(b) - float(a), abs=0.11)
    _, first, second, difference, *_ = tables["errors"]
    for a, b, change in zip(first[2:], second[2:], difference[2:], strict=True):
        assert int(change) == int(b) - int(a)


def test_names_are_text_everywhere(report, comparison):
    for folder in (report, comparison):
        html = (folder / "index.html").read_text()
        outline = Outline(html)
        assert outline.scripts == 2  # the data and the page's own
        assert "<i>" not in html and "<b>Title" not in html and "<img src=x" not in html
        data = page_data(folder)
        assert HOSTILE_CLASS in data["classes"]
        assert HOSTILE_FILE in [image["name"] for image in data["images"]]
        assert len(set(outline.ids)) == len(outline.ids)


def test_nothing_is_loaded_from_elsewhere(report):
    outline = Outline((report / "index.html").read_text())
    assert all(link.startswith(("#", "data:,")) for link in outline.loads)
    everything = "".join(path.read_text() for path in report.rglob("*.js"))
    everything += (report / "index.html").read_text()
    links = set(re.findall(r"https?://[^\"'\s]+", everything))
    assert links == {"http://www.w3.org/2000/svg"}  # a name, not an address
    assert "default-src 'none'" in everything


def test_gallery_counts_what_the_tables_count(report):
    data = page_data(report)
    total = [0] * len(Kind)  # of one run: nothing is "only here"
    for image in data["images"]:
        (items,) = image["items"]
        for kind, _, _, count in zip(*[iter(items)] * 4, strict=True):
            total[kind] += count
    by_size = data["errors"][0]
    assert total[:-1] == [sum(column) for column in zip(*by_size, strict=True)]


def test_images_come_worst_first_and_all_have_boxes(report, sample):
    data = page_data(report)
    errors = []
    for image in data["images"]:
        groups = list(zip(*[iter(image["items"][0])] * 4, strict=True))
        errors.append(sum(count for kind, _, _, count in groups if kind != Kind.FOUND))
    assert errors == sorted(errors, reverse=True) and len(errors) == 30
    truth = load_ground_truth(sample.annotations)
    objects = 0
    for number, image in enumerate(data["images"]):
        boxes = image_boxes(report, number, data["chunk"])
        objects += len(boxes["objects"])
        assert (report / image["file"]).is_file() and (report / image["thumb"]).is_file()
        for x0, y0, x1, y1, _, score, kind, partner, iou in boxes["runs"][0]:
            assert x0 <= x1 and y0 <= y1 and 0 <= score <= 1 and 0 <= iou <= 1
            assert (partner == -1) == (kind in (Kind.BACKGROUND, Kind.IGNORED))
            assert partner < len(boxes["objects"])
    assert objects == len(truth.sizes)


def test_comparison_has_what_changed_first_and_few_pictures(comparison):
    data = page_data(comparison)
    changes = [sum(image["change"]) for image in data["images"]]
    assert changes == sorted(changes, reverse=True) and changes[0] > 0
    assert [("file" in image) for image in data["images"]] == [True] * 5 + [False] * 25
    assert len(list((comparison / "images").iterdir())) == 5
    gained = sum(image["change"][0] for image in data["images"])
    lost = sum(image["change"][1] for image in data["images"])
    found = [sum(row[Kind.FOUND] for row in run) for run in data["errors"]]
    assert gained - lost == found[1] - found[0]


def test_a_second_report_replaces_the_first(sample, tmp_path):
    write_report(sample.runs[:1], sample.annotations, sample.images, tmp_path)
    (tmp_path / "images" / "mine.txt").write_text("kept")
    (tmp_path / "images" / "7777.jpg").write_text("kept, though named like the report's own")
    options = ReportOptions(max_images=2)
    write_report(sample.runs[:1], sample.annotations, sample.images, tmp_path, options)
    names = {path.name for path in (tmp_path / "images").iterdir()}
    assert names == {"0.png", "1.png", "mine.txt", "7777.jpg"}


def test_a_folder_with_other_files_is_refused_and_left_as_it_is(sample, tmp_path):
    (tmp_path / "images").mkdir()
    for name in ("images/0.jpg", "images/000000000139.jpg", "notes.txt"):
        (tmp_path / name).write_text("mine")
    with pytest.raises(ValueError, match="holds files that are not of a report: choose a new"):
        write_report(sample.runs[:1], sample.annotations, sample.images, tmp_path)
    files = {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*.*")}
    assert files == {"images/0.jpg", "images/000000000139.jpg", "notes.txt"}


def test_no_detections_and_no_pictures(sample, tmp_path, caplog):
    (tmp_path / "none.json").write_text("[]")
    output = tmp_path / "report"
    (tmp_path / "elsewhere").mkdir()
    write_report([tmp_path / "none.json"], sample.annotations, tmp_path / "elsewhere", output)
    row = Outline((output / "index.html").read_text()).tables["sizes"][1]
    assert row[2] == "0.0" and row[-2] == "0.0" and row[-3] == "n/a (0 detections)"
    assert f"no image of the dataset could be read below '{tmp_path / 'elsewhere'}'" in caplog.text
    assert "Errno" not in caplog.text and ".png' does not exist: check the path." in caplog.text
    assert not any("file" in image for image in page_data(output)["images"])


def test_one_image_that_is_missing(sample, tmp_path, caplog):
    images = tmp_path / "images"
    shutil.copytree(sample.images, images)
    next(images.glob("0*.png")).unlink()
    write_report(sample.runs[:1], sample.annotations, images, tmp_path / "report")
    assert "1 image could not be read" in caplog.text


def test_numbers_of_an_evaluator_are_shown_with_their_rules(sample, tmp_path):
    numbers = {
        "rules": {"protocol": "tt100k", "bins": {"small": [0, 32], "large": [96, None]}},
        "results": {"tt100k": {"F1_small": 12.5, "n": float("nan"), "at": "text"}, "other": None},
    }
    (tmp_path / "evaluation.json").write_text(json.dumps(numbers))
    options = ReportOptions(evaluations=[tmp_path / "evaluation.json"])
    write_report(sample.runs[:1], sample.annotations, sample.images, tmp_path / "r", options)
    html = (tmp_path / "r" / "index.html").read_text()
    rows = Outline(html).tables["evaluation"]
    assert rows[1:] == [["tt100k", "F1_small", "12.5"], ["tt100k", "n", "n/a"]]
    assert "<dd>small: 0, 32; large: 96, no end</dd>" in html


def test_bad_input_gets_one_sentence(sample, tmp_path):
    files = (sample.annotations, sample.images, tmp_path)
    with pytest.raises(ValueError, match="one or two files of results, but 3"):
        write_report([*sample.runs, sample.runs[0]], *files)
    with pytest.raises(ValueError, match=r"1 names were given for 2 run\(s\)"):
        write_report(sample.runs, *files, ReportOptions(names=("one",)))
    with pytest.raises(FileNotFoundError, match="The image folder '.*nowhere' does not exist"):
        write_report(sample.runs[:1], sample.annotations, tmp_path / "nowhere", tmp_path / "r")
    assert not (tmp_path / "r").exists()
    with pytest.raises(FileNotFoundError, match="missing.json"):
        write_report([tmp_path / "missing.json"], *files)
    (tmp_path / "odd.json").write_text('{"results": 3}')
    with pytest.raises(ValueError, match="odd.json is not a file of an evaluator"):
        options = ReportOptions(evaluations=[tmp_path / "odd.json"])
        write_report(sample.runs[:1], *files, options)


def test_runs_are_named_after_what_differs():
    assert run_names(["a/b.json"]) == ["detections"]
    assert run_names(["/x/fpn/base/r.json", "/x/efpn/r.json"]) == ["fpn/base", "efpn"]
    assert run_names(["/x/r.json", "/x/r.json"]) == ["run 1", "run 2"]


def test_classes_without_objects_come_last(sample, tmp_path):
    content = json.loads(sample.annotations.read_text())
    content["categories"].insert(0, {"id": 0, "name": "nothing"})
    annotations = tmp_path / "val.json"
    annotations.write_text(json.dumps(content))
    write_report(sample.runs[:1], annotations, sample.images, tmp_path / "r")
    _, *rows = Outline((tmp_path / "r" / "index.html").read_text()).tables["classes"]
    assert [row[0] for row in rows] == ["one", HOSTILE_CLASS, "three", "nothing"]
    assert rows[-1][1] == "0"
