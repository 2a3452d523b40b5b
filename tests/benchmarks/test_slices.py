import pytest
import torch
from ablation_rows import ROWS, row_config
from detectron2.modeling import build_model
from detectron2.structures import Boxes, Instances
from row_spec import PROTOCOLS
from slices import SlicedRCNN

pytestmark = pytest.mark.fast


def found(*rows):
    """Instances on 64 x 64 from rows of box, score and class."""
    table = torch.tensor(rows).reshape(-1, 6)
    boxes, scores, classes = Boxes(table[:, :4]), table[:, 4], table[:, 5].long()
    return Instances((64, 64), pred_boxes=boxes, scores=scores, pred_classes=classes)


@pytest.fixture
def detector():
    weights = dict.fromkeys(ROWS, "")
    return build_model(row_config(ROWS["fpn_1x_slices"], PROTOCOLS["tiny"], "native1x", 0, weights))


def test_detections_of_quarters_are_moved_into_the_image_and_joined(detector, monkeypatch):
    parts = iter(
        [
            found([10, 10, 20, 20, 0.5, 0], [28, 28, 36, 36, 0.6, 1]),
            # Half of the second object ends at the next quarter.
            found([20, 20, 40, 40, 0.9, 0], [56, 56, 64, 64, 0.8, 1], [0, 0, 8, 8, 0.7, 2]),
            found(),
            found([0, 0.5, 10, 20, 0.8, 2]),
            found([2, 2, 12, 16, 0.4, 0], [0.4, 2, 12, 16, 0.3, 0]),
        ]
    )
    seen = []
    monkeypatch.setattr(detector, "_detect_in", lambda image: (seen.append(image), next(parts))[1])
    image = torch.arange(64.0).expand(3, 64, 64)
    (result,) = detector([{"image": image, "height": 128, "width": 128}])
    instances = result["instances"]
    assert instances.image_size == (128, 128)
    torch.testing.assert_close(
        instances.pred_boxes.tensor,
        torch.tensor([[20, 20, 40, 40], [0, 0, 8, 8], [56, 56, 72, 72], [66, 66, 76, 80]]).float(),
    )
    assert instances.scores.tolist() == pytest.approx([0.9, 0.7, 0.6, 0.4])
    assert instances.pred_classes.tolist() == [0, 2, 1, 0]
    assert [x.shape for x in seen] == [(3, 64, 64)] * 5
    # Columns 0 to 31 and 32 to 63 of the image, at twice the scale.
    assert [round(x.float().mean().item(), 1) for x in seen] == [31.5, 15.5, 47.5, 15.5, 47.5]


def test_it_has_the_weights_of_fpn_and_detects(detector):
    assert isinstance(detector, SlicedRCNN)
    weights = dict.fromkeys(ROWS, "")
    stock = row_config(ROWS["fpn_1x_at_2x"], PROTOCOLS["tiny"], "native1x", 0, weights)
    assert detector.state_dict().keys() == build_model(stock).state_dict().keys()
    (result,) = detector.eval()([{"image": torch.zeros(3, 64, 64), "height": 64, "width": 64}])
    assert len(result["instances"]) <= 100
