from pathlib import Path

import numpy as np
import pytest
import torch
from detectron2.structures import BoxMode
from PIL import Image

from efpn_d2.inspection.foreground_masks import ForegroundMaskExtractor, draw_masks
from efpn_d2.inspection.pyramids import PyramidSource, build_detector, load_weights
from tests.inspection.tiny_pyramid import write_image, write_pyramid

pytestmark = pytest.mark.fast

FBSM = {"MODEL.EFPN_BS.FBSM_ENABLED": True}
CEM = {"MODEL.EFPN_BS.CEM_ENABLED": True}
WITHOUT_P2_PRIME = {
    "MODEL.BACKBONE.NAME": "build_resnet_enhanced_fpn_backbone",
    "MODEL.EFPN.ROUTING": "none",
}
RETINANET = {
    "MODEL.META_ARCHITECTURE": "RetinaNet",
    "MODEL.FPN.IN_FEATURES": ["res3", "res4", "res5"],
    "MODEL.ANCHOR_GENERATOR.SIZES": [[32]],
}
PYRAMIDS = {
    "efpn": ({}, ["p2_prime", "p2", "p3", "p4"]),
    "fpn": (WITHOUT_P2_PRIME, ["p2", "p3", "p4"]),
    "retinanet_efpn": (
        {**RETINANET, "MODEL.BACKBONE.NAME": "build_retinanet_resnet_efpn_backbone"},
        ["p2_prime", "p3", "p4"],
    ),
    "retinanet_fpn": (
        {**RETINANET, "MODEL.BACKBONE.NAME": "build_retinanet_resnet_enhanced_fpn_backbone"},
        ["p3", "p4"],
    ),
}
STRIDES = {"p2_prime": 2, "p2": 4, "p3": 8, "p4": 16}


def write_model(folder: Path, label: str = "model", **options: object) -> PyramidSource:
    """A detector with FBSM whose gates are open, and whose masks differ from cell to cell."""
    # Random weights enlarge what they are given; of a small input the masks are between 0 and 1.
    options = {**FBSM, "MODEL.PIXEL_STD": [500.0, 500.0, 500.0], **options}
    torch.manual_seed(0)
    source, weights = write_pyramid(folder, label, **options)
    for key, value in weights.items():
        if ".fbsm.gamma." in key:
            value.fill_(0.25)
        if ".fbsm.mask." in key:
            torch.nn.init.normal_(value, std=0.5)
    torch.save({"model": weights}, source.weights)
    return source


def record(path: Path, boxes=(), crowd=()) -> dict:
    annotations = [
        {"bbox": list(box), "bbox_mode": BoxMode.XYXY_ABS, "category_id": 0, "iscrowd": int(c)}
        for group, c in ((boxes, False), (crowd, True))
        for box in group
    ]
    return {"file_name": str(path), "annotations": annotations}


@pytest.mark.parametrize("name", PYRAMIDS)
@pytest.mark.parametrize("cem", [{}, CEM])
def test_masks_are_those_of_the_pyramid_without_padding(tmp_path, name, cem):
    options, levels = PYRAMIDS[name]
    source = write_model(tmp_path, **options, **cem)
    write_image(tmp_path / "image.png", 61, 45)
    found = ForegroundMaskExtractor(source)(record(tmp_path / "image.png"))
    assert [mask.level for mask in found.masks] == levels
    assert (found.name, found.size, found.file_size) == ("image.png", (61, 45), (61, 45))

    _, model = build_detector(source)
    load_weights(model, source)
    pixels = torch.as_tensor(found.image[:, :, ::-1].copy()).permute(2, 0, 1)
    with torch.no_grad():
        images = model.preprocess_image([{"image": pixels}]).tensor
        _, logits = model.backbone.forward_with_masks(images)
    for mask in found.masks:
        stride = STRIDES[mask.level]
        expected = 1 / (1 + torch.exp(-logits[mask.level][0, 0]))
        expected = expected[: -(-45 // stride), : -(-61 // stride)]
        torch.testing.assert_close(torch.from_numpy(mask.values), expected)
        assert expected.std() > 0.05
        assert (mask.stride, mask.gain, mask.contrast) == (stride, 0.25, None)


def test_contrast_is_the_mean_in_covered_cells_of_the_image_minus_that_in_others(tmp_path):
    boxes = [[3, 5, 14.5, 21], [30, 10, 45, 17], [50, 40, 70, 60]]
    write_image(tmp_path / "image.png", 61, 45)
    found = ForegroundMaskExtractor(write_model(tmp_path))(record(tmp_path / "image.png", boxes))
    assert found.boxes.tolist() == [*boxes[:2], [50, 40, 61, 45]]
    for mask in found.masks:
        covered, others = [], []
        for (y, x), value in np.ndenumerate(mask.values):
            left, top = x * mask.stride, y * mask.stride
            hit = any(
                x0 < left + mask.stride and x1 > left and y0 < top + mask.stride and y1 > top
                for x0, y0, x1, y1 in boxes
            )
            (covered if hit else others).append(value)
        expected = np.mean(covered) - np.mean(others)
        assert mask.contrast == pytest.approx(expected, abs=1e-5)


def test_without_uncovered_cells_there_is_no_contrast(tmp_path):
    write_image(tmp_path / "image.png", 61, 45)
    extractor = ForegroundMaskExtractor(write_model(tmp_path))
    found = extractor(record(tmp_path / "image.png", [[0, 0, 61, 45]]))
    assert [mask.contrast for mask in found.masks] == [None] * 4
    found = extractor(record(tmp_path / "image.png", crowd=[[0, 0, 9, 9]]))
    assert len(found.boxes) == 0 and found.masks[0].contrast is None


def test_boxes_follow_the_scale_of_testing(tmp_path):
    source = write_model(tmp_path, **{"INPUT.MIN_SIZE_TEST": 60})
    write_image(tmp_path / "image.png", 40, 30)
    found = ForegroundMaskExtractor(source)(record(tmp_path / "image.png", [[10, 5, 20, 15]]))
    assert (found.size, found.file_size) == ((80, 60), (40, 30))
    assert found.boxes.tolist() == [[20, 10, 40, 30]]
    assert found.masks[0].values.shape == (30, 40)


def test_the_model_is_left_as_it_was(tmp_path):
    extractor = ForegroundMaskExtractor(write_model(tmp_path))
    backbone = extractor._model.backbone
    images = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        before = backbone(images)
        write_image(tmp_path / "image.png", 61, 45)
        extractor(record(tmp_path / "image.png"))
        after = backbone(images)
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)


@pytest.mark.parametrize(
    "options", [{}, CEM, {**WITHOUT_P2_PRIME}, {"MODEL.BACKBONE.NAME": "build_resnet_fpn_backbone",
    "MODEL.ROI_HEADS.NAME": "StandardROIHeads"}]
)  # fmt: skip
def test_a_config_without_fbsm_is_refused(tmp_path, options):
    source, _ = write_pyramid(tmp_path, "plain", **options)
    with pytest.raises(ValueError, match="plain.yaml' .*MODEL.EFPN_BS.FBSM_ENABLED True"):
        ForegroundMaskExtractor(source)


@pytest.mark.parametrize(
    ("absent", "message"),
    [
        (".fbsm.", r"lacks .*weights of FBSM of .*fbsm\.\S+ is one\): .*checkpoint"),
        (".fbsm.gamma.p3", r"lacks .*weights of FBSM of .*gamma.p3 is one"),
        (".cem.", "lacks [0-9]+ tensors .* backbone of .* belongs to another config"),
        (".extension.", "lacks .*weights of the extended level"),
    ],
)
def test_a_checkpoint_that_lacks_weights_is_refused(tmp_path, absent, message):
    source = write_model(tmp_path, **CEM)
    weights = torch.load(source.weights)["model"]
    kept = {key: value for key, value in weights.items() if absent not in key}
    assert len(kept) < len(weights)
    torch.save({"model": kept}, source.weights)
    with pytest.raises(ValueError, match=message):
        ForegroundMaskExtractor(source)


def test_masks_of_another_width_are_refused(tmp_path):
    source = write_model(tmp_path)
    weights = torch.load(source.weights)["model"]
    key = "backbone.enhancement.fbsm.mask.p2.weight"
    weights[key] = torch.zeros(1, 24, 3, 3)
    torch.save({"model": weights}, source.weights)
    with pytest.raises(ValueError, match="lacks .*weights of FBSM"):
        ForegroundMaskExtractor(source)


def test_a_file_takes_all_images_and_a_folder_one_each(tmp_path):
    extractor = ForegroundMaskExtractor(write_model(tmp_path, **WITHOUT_P2_PRIME))
    records = []
    for i in range(2):
        write_image(tmp_path / f"{i}.png", 61, 45, seed=i)
        records.append(record(tmp_path / f"{i}.png", [[4, 4, 12, 20]]))
    one = draw_masks(extractor, records, tmp_path / "all.png")
    each = draw_masks(extractor, records, tmp_path / "out")
    cut = draw_masks(extractor, records, tmp_path / "cut.png", (0, 0, 20, 20))
    assert one == [tmp_path / "all.png"]
    assert each == [tmp_path / "out" / "0.png", tmp_path / "out" / "1.png"]
    heights = [Image.open(path).size[1] for path in (*one, *each, *cut)]
    assert heights[1] == heights[2]
    assert heights[0] > 1.5 * heights[1] and heights[3] > heights[0]  # 20 x 20 is less wide


@pytest.mark.parametrize(
    ("second", "crop", "message"),
    [
        ({"file_name": "text.png"}, None, "text.png' cannot be read as an image"),
        ({"file_name": "none.png"}, None, "none.png' cannot be read as an image"),
        ({"file_name": "1.png", "width": 9, "height": 9}, None, "Mismatched image shape"),
        ({"file_name": "1.png"}, (0, 0, 50, 40), "is not within the image '1.png' of 40 x 45 pix"),
    ],
)
def test_nothing_is_written_if_any_image_cannot_be_used(tmp_path, second, crop, message):
    extractor = ForegroundMaskExtractor(write_model(tmp_path, **WITHOUT_P2_PRIME))
    write_image(tmp_path / "0.png", 61, 45)
    write_image(tmp_path / "1.png", 40, 45)
    (tmp_path / "text.png").write_text("nothing")
    second = {**second, "file_name": str(tmp_path / second["file_name"])}
    with pytest.raises(ValueError, match=message):
        draw_masks(extractor, [record(tmp_path / "0.png"), second], tmp_path / "out", crop)
    assert not (tmp_path / "out").exists()
