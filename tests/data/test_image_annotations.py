import json

import pytest

from efpn_d2.data.image_annotations import find_records, load_records
from efpn_d2.data.synthetic import SyntheticConfig, generate_synthetic

pytestmark = pytest.mark.fast


def test_records_of_a_coco_json_keep_their_names_and_boxes(tmp_path):
    content = {
        "images": [{"id": 7, "file_name": "a/1.png", "width": 40, "height": 30}],
        "categories": [{"id": 5, "name": "five"}],
        "annotations": [
            {"id": 1, "image_id": 7, "category_id": 5, "bbox": [1, 2, 10, 20], "iscrowd": 0}
        ],
    }
    (tmp_path / "gt.json").write_text(json.dumps(content))
    (record,) = load_records(str(tmp_path / "gt.json"))
    assert record["file_name"] == "a/1.png"
    assert [a["bbox"] for a in record["annotations"]] == [[1, 2, 10, 20]]


def test_records_of_a_synthetic_set_are_found_by_its_name(tmp_path, monkeypatch):
    monkeypatch.setenv("DETECTRON2_DATASETS", str(tmp_path))
    config = SyntheticConfig(
        variant="native1x", split="val", num_images=2, student_size=64, max_size=32.0
    )
    generate_synthetic(config, workers=1)
    records = load_records("synthetic_signs_native1x_val")
    assert [record["height"] for record in records] == [64, 64]
    image = records[1]["file_name"]
    assert find_records(records, [image]) == [records[1]]


def test_an_image_has_the_record_whose_name_ends_its_path(tmp_path):
    records = [{"file_name": name, "id": name} for name in ("a/1.png", "b/1.png", "2.png")]
    images = [tmp_path / "b" / "1.png", tmp_path / "c" / "2.png", tmp_path / "a" / "1.png"]
    found = find_records(records, images)
    assert [record["id"] for record in found] == ["b/1.png", "2.png", "a/1.png"]
    assert [record["file_name"] for record in found] == [str(image) for image in images]


@pytest.mark.parametrize(
    ("name", "message"), [("3.png", "have no entries for the image"), ("2.png", "have 2 entries")]
)
def test_no_record_and_two_records_are_refused(name, message, tmp_path):
    records = [{"file_name": "2.png"}, {"file_name": "x/2.png"}]
    with pytest.raises(ValueError, match=message):
        find_records(records, [tmp_path / "x" / name])


def test_what_is_no_data_set_is_refused(tmp_path):
    with pytest.raises(ValueError, match="'nowhere' is neither a COCO JSON nor the name"):
        load_records("nowhere")
    (tmp_path / "list.json").write_text("[]")
    with pytest.raises(ValueError, match="list.json .*COCO JSON"):
        load_records(str(tmp_path / "list.json"))
