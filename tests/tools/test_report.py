import json

import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog

import prepare_dataset
import report
from tests.report.sample import write_sample

pytestmark = pytest.mark.fast


@pytest.fixture(scope="module")
def sample(tmp_path_factory):
    return write_sample(tmp_path_factory.mktemp("sample"), images=8)


def arguments(sample, output, *more):
    files = ["--predictions", sample.runs[0], "--dataset", sample.annotations]
    return [str(a) for a in (*files, "--images", sample.images, "--output", output, *more)]


def test_one_run(sample, tmp_path, capsys):
    report.main(arguments(sample, tmp_path / "r", "--title", "Mine", "--max-images", "3"))
    page = tmp_path / "r" / "index.html"
    assert capsys.readouterr().out == f"{page}\n"
    assert "<h1>Mine</h1>" in page.read_text()
    assert len(list((tmp_path / "r" / "images").iterdir())) == 3


def test_two_runs_by_a_protocol_with_changes(sample, tmp_path):
    more = ("--compare", sample.runs[1], "--names", "FPN", "EFPN", "--protocol", "aitod")
    rules = ("--size-bins", "0", "10", "--max-dets", "7", "--score-threshold", "0.25")
    report.main(arguments(sample, tmp_path, *more, *rules, "--backend", "pycocotools"))
    html = (tmp_path / "index.html").read_text()
    assert "<dt>Score threshold</dt><dd>0.250 (FPN); 0.250 (EFPN)</dd>" in html
    assert "<dd>at most 7 per class</dd>" in html
    assert "<dt>Protocol</dt><dd>aitod; " in html and "10 px and more" in html
    assert '<td class="run">EFPN</td>' in html


def test_a_registered_data_set(sample, tmp_path):
    files = {"json_file": str(sample.annotations), "image_root": str(sample.images)}
    MetadataCatalog.get("report_tool_test").set(**files)
    try:
        run = ["--predictions", str(sample.runs[0]), "--output", str(tmp_path)]
        report.main([*run, "--dataset", "report_tool_test"])
    finally:
        MetadataCatalog.remove("report_tool_test")
    assert (tmp_path / "index.html").is_file()


@pytest.mark.parametrize("by_name", [True, False])
def test_a_prepared_data_set(sample, tmp_path, monkeypatch, by_name):
    """Its images are known, by its name and by its JSON."""
    root = tmp_path / "sets"
    source = ["--source", str(sample.annotations), "--images", str(sample.images)]
    prepare_dataset.main(["coco", *source, "--output", str(root / "prepared"), "--name", "mine"])
    monkeypatch.setenv("DETECTRON2_DATASETS", str(root))
    dataset = "mine" if by_name else str(root / "prepared" / "mine.json")
    try:
        run = ["--predictions", str(sample.runs[0]), "--output", str(tmp_path / "r")]
        report.main([*run, "--dataset", dataset])
    finally:
        for catalog in (DatasetCatalog, MetadataCatalog):
            if "mine" in catalog.list():
                catalog.remove("mine")
    assert (tmp_path / "r" / "index.html").is_file()


@pytest.mark.parametrize(
    ("own", "asked", "shown"),
    [
        ("aitod", (), "aitod"),
        ("aitod", ("--protocol", "coco"), "coco"),
        ("visdrone", (), "coco; size bins"),
    ],
)
def test_a_prepared_data_sets_own_protocol_unless_another_is_asked_for(
    sample, tmp_path, own, asked, shown
):
    prepared = tmp_path / "prepared"
    source = ["--source", str(sample.annotations), "--images", str(sample.images)]
    prepare_dataset.main(["coco", *source, "--output", str(prepared), "--name", "mine"])
    (description,) = (f for f in prepared.glob("mine*.json") if '"protocol"' in f.read_text())
    description.write_text(json.dumps({**json.loads(description.read_text()), "protocol": own}))
    run = ["--predictions", str(sample.runs[0]), "--output", str(tmp_path / "r")]
    report.main([*run, "--dataset", str(prepared / "mine.json"), *asked])
    assert f"<dt>Protocol</dt><dd>{shown}" in (tmp_path / "r" / "index.html").read_text()


def test_an_image_folder_that_is_not_there(sample, tmp_path):
    wrong = sample._replace(images=tmp_path / "nonsense")
    with pytest.raises(SystemExit, match="error: The image folder '.*nonsense' does not exist"):
        report.main(arguments(wrong, tmp_path / "r"))
    assert not (tmp_path / "r").exists()


def test_predictions_that_are_not_there(sample, tmp_path):
    wrong = sample._replace(runs=[tmp_path / "none.json"])
    with pytest.raises(SystemExit, match="^error: '.*none.json' does not exist: check the path.$"):
        report.main(arguments(wrong, tmp_path / "r"))


@pytest.mark.parametrize("option", ["--max-images", "--max-dets", "--max-side"])
def test_negative_numbers_are_refused(sample, tmp_path, option, capsys):
    with pytest.raises(SystemExit):
        report.main(arguments(sample, tmp_path / "r", option, "-1"))
    assert f"argument {option}: '-1' must be a whole number, at least" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("dataset", "message"),
    [
        ("val.json", "error: --images .*folder"),
        ("no_such_set", "error: 'no_such_set' is neither a COCO JSON nor a registered dataset"),
    ],
)
def test_a_data_set_that_is_not_there(sample, tmp_path, dataset, message):
    run = ["--predictions", str(sample.runs[0]), "--output", str(tmp_path / "r")]
    with pytest.raises(SystemExit, match=message):
        report.main([*run, "--dataset", dataset])
    assert not (tmp_path / "r").exists()
