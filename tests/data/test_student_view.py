"""What distillation makes of a sample that was loaded at twice the student's scale."""

import pytest
import torch
from detectron2.structures import BitMasks, Boxes, Instances, Keypoints, PolygonMasks

from efpn_d2.data.student_view import TeacherViewMapper, halve_image, halve_instances

pytestmark = pytest.mark.fast


def test_a_pixel_is_the_mean_of_the_four_that_it_covers():
    image = torch.tensor([[[0, 2, 9], [4, 8, 3], [10, 21, 7]]], dtype=torch.uint8)
    # 14 / 4 = 3.5 and 31 / 2 = 15.5 are rounded to even; the last column and row have no partner.
    assert halve_image(image).tolist() == [[[4, 6], [16, 7]]]
    assert halve_image(image).dtype == torch.uint8
    assert halve_image(image.float()).tolist() == [[[3.5, 6.0], [15.5, 7.0]]]


def test_the_sample_is_the_students_and_has_the_teachers_image():
    instances = Instances((5, 8), gt_boxes=Boxes(torch.tensor([[1.0, 2.0, 7.0, 5.0]])))
    given = {"image": torch.zeros(3, 5, 8), "instances": instances, "height": 50}
    sample = TeacherViewMapper(dict)(given)
    assert sample["teacher_image"] is given["image"]
    assert sample["image"].shape == (3, 3, 4)
    assert sample["instances"].image_size == (3, 4)
    assert sample["instances"].gt_boxes.tensor.tolist() == [[0.5, 1.0, 3.5, 2.5]]
    assert sample["height"] == 50
    assert given["instances"].image_size == (5, 8)
    assert "instances" not in TeacherViewMapper(dict)({"image": torch.zeros(3, 4, 4)})


def test_masks_and_keypoints_halve_too():
    instances = Instances((3, 4))
    instances.gt_masks = PolygonMasks([[[0.0, 0.0, 4.0, 0.0, 4.0, 3.0]]])
    instances.gt_keypoints = Keypoints(torch.tensor([[[3.0, 1.0, 2.0]]]))
    instances.gt_classes = torch.tensor([1])
    halved = halve_instances(instances)
    assert halved.gt_masks.polygons[0][0].tolist() == [0, 0, 2, 0, 2, 1.5]
    assert halved.gt_keypoints.tensor.tolist() == [[[1.5, 0.5, 2.0]]]
    assert halved.gt_classes.tolist() == [1]
    masks = torch.tensor([[[1, 1, 0, 1], [0, 0, 0, 0], [1, 1, 1, 0]]], dtype=torch.bool)
    bits = halve_instances(Instances((3, 4), gt_masks=BitMasks(masks))).gt_masks.tensor
    assert bits.tolist() == [[[True, False], [True, False]]]  # half covered counts


def test_an_unknown_field_is_named():
    with pytest.raises(TypeError, match="'gt_depth' is a list"):
        halve_instances(Instances((2, 2), gt_depth=[1.0]))
