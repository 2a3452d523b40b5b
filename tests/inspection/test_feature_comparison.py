from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from efpn_d2.inspection.channels import reduce_channels
from efpn_d2.inspection.feature_comparison import (
    ComparisonOptions,
    compare_features,
    comparison_lines,
)
from efpn_d2.inspection.feature_maps import FeatureMaps, measure_distance

pytestmark = pytest.mark.fast


def make_maps(name: str = "image.png", boxes: int = 2) -> FeatureMaps:
    """A file of 60 x 40 pixels at half its size, i.e. 30 x 20 pixels and 15 x 10 cells."""
    generator = torch.Generator().manual_seed(0)
    target, ftt, stock = torch.randn(3, 4, 10, 15, generator=generator)
    return FeatureMaps(
        name=name,
        image=np.zeros((40, 60, 3), dtype=np.uint8),
        size=(30.0, 20.0),
        file_size=(60, 40),
        boxes=torch.tensor([[2.0, 3.0, 9.0, 8.0], [20.0, 10.0, 24.0, 14.0]])[:boxes],
        stride=2,
        target=target,
        extended={"FTT": ftt},
        stock=stock,
    )


def test_panels_are_target_models_and_stock_with_their_distances():
    maps = make_maps()
    (line,) = comparison_lines(maps, ComparisonOptions(reduction="norm"))
    titles = ["Target: FPN P2, 2x image", "P'2, FTT", "FPN P2, 1x image"]
    assert [panel.title for panel in line.panels] == titles
    features = [maps.target, maps.extended["FTT"], maps.stock]
    expected = reduce_channels([x.numpy() for x in features], "norm", maps.target.numpy())
    np.testing.assert_array_equal([panel.values for panel in line.panels], expected)
    for panel, x in zip(line.panels[1:], features[1:], strict=True):
        overall, on_objects = measure_distance(x, maps)
        assert panel.caption == f"$L_{{glob}}$ {overall:.2f}   $L_{{pos}}$ {on_objects:.2f}"
    assert line.panels[0].caption.startswith(f"mean $|F|$ {maps.target.abs().mean():#.3g}, in box")
    assert line.caption == "image.png, 2 boxes"
    np.testing.assert_array_equal(line.boxes, maps.boxes)
    assert (line.cell, line.size, line.window) == (2, (30, 20), None)


@pytest.mark.parametrize(("boxes", "text"), [(0, ""), (1, ", 1 box"), (2, ", 2 boxes")])
def test_boxes_are_counted_and_without_them_there_is_no_distance_on_objects(boxes, text):
    (line,) = comparison_lines(make_maps(boxes=boxes), ComparisonOptions())
    assert line.caption == f"image.png{text}"
    assert all(("L_{pos}" in p.caption) == (boxes > 0) for p in line.panels[1:])
    assert ("in boxes" in line.panels[0].caption) == (boxes > 0)


def test_the_mean_of_a_line_of_differences_is_the_distance():
    maps = make_maps()
    features, differences = comparison_lines(maps, ComparisonOptions(differences=True))
    assert differences.image is None and differences.panels[0] is None
    assert len(differences.panels) == len(features.panels)
    for panel, x in zip(differences.panels[1:], (maps.extended["FTT"], maps.stock), strict=True):
        assert panel.values.mean() == pytest.approx(measure_distance(x, maps).overall, rel=1e-5)


def test_a_crop_is_in_pixels_of_the_file():
    (line,) = comparison_lines(make_maps(), ComparisonOptions(crop=(10, 4, 60, 40)))
    assert line.window == (5, 2, 30, 20)


@pytest.mark.parametrize("crop", [(0, 0, 61, 40), (10, 4, 10, 40), (-1, 0, 5, 5), (0, 9, 5, 5)])
def test_a_crop_outside_of_the_image_is_refused(crop):
    with pytest.raises(ValueError, match="is not within the image 'image.png' of 60 x 40 pixels"):
        comparison_lines(make_maps(), ComparisonOptions(crop=crop))


def extractor(record: dict) -> FeatureMaps:
    return make_maps(Path(record["file_name"]).name)


def records(folder: Path) -> list[dict]:
    return [{"file_name": str(folder / name)} for name in ("a.jpg", "b.png")]


def test_a_file_takes_all_images_and_a_folder_one_each(tmp_path):
    options = ComparisonOptions()
    one = compare_features(extractor, records(tmp_path), tmp_path / "all.png", options)
    each = compare_features(extractor, records(tmp_path), tmp_path / "out", options)
    assert one == [tmp_path / "all.png"]
    assert each == [tmp_path / "out" / "a.png", tmp_path / "out" / "b.png"]
    sizes = [Image.open(path).size for path in (*one, *each)]
    assert sizes[1] == sizes[2]
    assert sizes[0][0] == sizes[1][0] and sizes[0][1] > 1.5 * sizes[1][1]


@pytest.mark.parametrize(
    ("output", "message"),
    [
        ("b.png", "is an input"),
        (".", "is an input"),
        ("a.doc", "cannot be written as 'a.doc'"),
    ],
)
def test_outputs_that_would_harm_are_refused_before_any_work(tmp_path, output, message):
    def never(record):
        pytest.fail("the models ran")

    with pytest.raises(ValueError, match=message):
        compare_features(never, records(tmp_path), tmp_path / output, ComparisonOptions())
