import dataclasses
from pathlib import Path

import pytest

from efpn_d2.data.synthetic import SyntheticConfig, synthetic_paths

pytestmark = pytest.mark.fast


@pytest.mark.parametrize(
    "name, value",
    [
        ("variant", "native3x"),
        ("split", "a/b"),
        ("num_images", -1),
        ("image_format", "gif"),
        ("jpeg_quality", 0),
        ("min_size", 100.0),
        ("max_size", 200.0),
        ("max_objects", 0),
        ("empty_fraction", 0.95),
        ("crowded_objects", (40, 20)),
        ("occluded_fraction", 1.5),
        ("clutter", -1.0),
        ("brightness_jitter", 1.0),
    ],
)
def test_bad_value_is_named(name, value):
    with pytest.raises(ValueError, match=rf"^SyntheticConfig needs .*{name}=") as error:
        SyntheticConfig(**{name: value})
    assert repr(value) in str(error.value)


def test_sizes_of_the_variants():
    one, two = (SyntheticConfig(variant=v, student_size=200) for v in ("native1x", "native2x"))
    assert (one.file_size, one.scene_size, two.file_size, two.scene_size) == (200, 400, 400, 400)


def test_image_options_are_all_but_the_length():
    fields = {field.name for field in dataclasses.fields(SyntheticConfig)}
    assert SyntheticConfig().image_options().keys() == fields - {"num_images"}


def test_paths(monkeypatch):
    json_file, image_dir = synthetic_paths("native1x", "val", "/data")
    assert json_file == Path("/data/synthetic_signs/native1x/annotations/val.json")
    assert image_dir == Path("/data/synthetic_signs/native1x/val")
    monkeypatch.setenv("DETECTRON2_DATASETS", "/elsewhere")
    assert synthetic_paths("native2x", "val")[1] == Path("/elsewhere/synthetic_signs/native2x/val")
    monkeypatch.delenv("DETECTRON2_DATASETS")
    assert synthetic_paths("native2x", "val")[1] == Path("datasets/synthetic_signs/native2x/val")
