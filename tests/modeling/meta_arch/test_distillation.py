import copy

import pytest
import torch
from detectron2.config import CfgNode
from detectron2.modeling import Backbone, build_model
from detectron2.utils.events import EventStorage
from torch.nn import functional as F

from efpn_d2.data.student_view import TeacherViewMapper, halve_instances
from efpn_d2.losses import foreground_background_balanced_loss
from efpn_d2.modeling import DistillationRCNN
from efpn_d2.modeling.freezing import eval_frozen_modules, freeze_all_but
from tests.modeling.helpers import tiny_config, training_input, without_gradient

pytestmark = pytest.mark.fast

TERMS = [
    f"loss_distill_{level}_{term}" for level in ("p3", "p2") for term in ("global", "positive")
]


def make_config(stage: str = "distill", mask: bool = False, **options: object) -> CfgNode:
    cfg = tiny_config("COCO-InstanceSegmentation/mask_rcnn_R_50_EFPN_1x.yaml" if mask else
                      "COCO-Detection/faster_rcnn_R_50_EFPN_1x.yaml")  # fmt: skip
    cfg.MODEL.META_ARCHITECTURE = "DistillationRCNN"
    cfg.DISTILL.STAGE = stage
    cfg.merge_from_list([x for pair in options.items() for x in pair])
    return cfg


def make_model(
    stage: str = "distill", teacher: Backbone | None = None, **options: object
) -> torch.nn.Module:
    torch.manual_seed(0)
    arguments = DistillationRCNN.from_config(make_config(stage, **options))
    if teacher is not None:
        arguments["teacher"] = teacher
    model = DistillationRCNN(**arguments)
    if stage == "distill":
        freeze_all_but(model, ("backbone.extension.",))
    return model.train()


def losses_of(model: torch.nn.Module, inputs: list[dict]) -> dict[str, torch.Tensor]:
    torch.manual_seed(1)
    with EventStorage():
        return model(inputs)


def with_teacher_view(sample: dict) -> dict:
    return TeacherViewMapper(dict)(sample)


INPUTS = [
    with_teacher_view(training_input([[8, 8, 24, 28], [4, 4, 120, 120]], size=(128, 192))),
    with_teacher_view(training_input([], size=(101, 130), seed=1)),
]


def test_state_dict_is_that_of_the_plain_detector():
    cfg = make_config()
    keys = build_model(cfg).state_dict().keys()
    cfg.MODEL.META_ARCHITECTURE, cfg.DISTILL.STAGE = "GeneralizedRCNN", ""
    assert build_model(cfg).state_dict().keys() == keys


def test_losses_are_eq_5_of_student_and_teacher_maps():
    model = make_model()
    losses = losses_of(model, INPUTS)
    assert list(losses) == TERMS
    with torch.no_grad():
        views = [{"image": x["teacher_image"]} for x in INPUTS]
        image = model.preprocess_image(views).tensor
        height, width = (-(-side // 64) * 64 for side in image.shape[-2:])
        image = F.pad(image, (0, width - image.shape[-1], 0, height - image.shape[-2]))
        detector = copy.deepcopy(model).eval()
        stock = detector.backbone
        hooked = {}
        stock.fpn_output3.register_forward_pre_hook(lambda _, args: hooked.update(p3=args[0]))
        hooked["p2"] = stock(image)["p2"]
        student = stock.student_maps(F.interpolate(image, scale_factor=0.5, mode="area"))
        boxes = [x["instances"].gt_boxes for x in INPUTS]
        assert boxes[0].tensor.tolist() == [[4, 4, 12, 14], [2, 2, 60, 60]]
        stock(image)
        for level, stride in (("p3", 4), ("p2", 2)):
            expected = foreground_background_balanced_loss(
                student[f"{level}_prime"], hooked[level], boxes, stride
            )
            for term, value in expected.items():
                assert torch.allclose(losses[f"loss_distill_{level}_{term}"], value, atol=1e-6)


def test_only_the_extension_learns_and_rpn_and_heads_do_not_run():
    model = make_model()
    before = {k: v.clone() for k, v in model.state_dict().items()}
    for part in (model.proposal_generator, model.roi_heads, model.backbone.fpn_output4):
        part.register_forward_hook(lambda *_: pytest.fail("a part ran that Eq. 5 does not need"))
    sum(losses_of(model, INPUTS).values()).backward()
    assert without_gradient(model) == []
    torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=1.0).step()
    for key, value in model.state_dict().items():
        same = torch.equal(value, before[key])
        assert same != key.startswith("backbone.extension."), key


def test_frozen_parts_stay_in_evaluation_mode():
    model = make_model()
    assert not model.backbone.bottom_up.training
    assert not model.proposal_generator.training
    assert model.backbone.extension.training
    model.eval()
    assert not model.backbone.extension.training
    assert model.train().backbone.extension.training


@pytest.mark.parametrize(
    ("options", "terms"),
    [
        ({"DISTILL.LEVELS": ["p2_prime"]}, TERMS[2:]),
        ({"DISTILL.LEVELS": ["p3_prime"]}, TERMS[:2]),
    ],
)
def test_levels_can_be_chosen(options, terms):
    assert list(losses_of(make_model(**options), INPUTS)) == terms


def test_lambda_zero_is_the_global_loss_alone():
    plain, without = (
        losses_of(make_model(**{"DISTILL.POSITIVE_WEIGHT": w}), INPUTS) for w in (1.0, 0.0)
    )
    assert without["loss_distill_p3_positive"] == without["loss_distill_p2_positive"] == 0
    for level in ("p3", "p2"):
        name = f"loss_distill_{level}_global"
        assert torch.equal(without[name], plain[name])


def test_a_view_of_the_teacher_can_be_interpolated_from_the_student():
    model = make_model(**{"DISTILL.VIEW": "upsample"})
    seen = {}
    model.backbone.bottom_up.stem.register_forward_pre_hook(lambda *_: pytest.fail("no stem call"))
    model.backbone.bottom_up.stem.conv1.register_forward_pre_hook(
        lambda _, args: seen.setdefault("shapes", []).append(tuple(args[0].shape))
    )
    losses = losses_of(model, INPUTS)
    assert all(torch.isfinite(v) for v in losses.values())
    assert seen["shapes"] == [(2, 3, 64, 96), (2, 3, 128, 192)]


def test_another_teacher_gives_the_targets_and_is_no_part_of_the_model():
    torch.manual_seed(5)
    teacher = build_model(make_config()).train().backbone
    own, other = make_model(), make_model(teacher=teacher)
    assert other.teacher is teacher and own.teacher is own.backbone
    assert other.state_dict().keys() == own.state_dict().keys()
    assert not any(p.requires_grad for p in teacher.parameters())
    assert not any(m.training for m in other.train().teacher.modules())
    name = "loss_distill_p2_global"
    assert not torch.equal(losses_of(own, INPUTS)[name], losses_of(other, INPUTS)[name])
    for model in (own, other):
        model.backbone.load_state_dict(teacher.state_dict())
    assert torch.equal(losses_of(own, INPUTS)[name], losses_of(other, INPUTS)[name])


def test_the_config_builds_the_teacher_of_its_weights(tmp_path):
    torch.manual_seed(5)
    other = build_model(make_config())
    torch.save({"model": other.state_dict()}, tmp_path / "teacher.pth")
    weights = {"DISTILL.TEACHER_WEIGHTS": str(tmp_path / "teacher.pth")}
    for stage in ("distill", "joint"):
        model = build_model(make_config(stage, **weights))
        expected, found = other.backbone.state_dict(), model.teacher.state_dict()
        assert all(torch.equal(found[k], expected[k]) for k in expected)
    # Stages without Eq. 5 do not read it.
    model = build_model(make_config("", **{"DISTILL.TEACHER_WEIGHTS": "none.pth"}))
    assert model.teacher is model.backbone


@pytest.mark.parametrize("mask", [False, True])
@pytest.mark.parametrize("empty", [False, True])
def test_joint_trains_everything_by_all_losses(mask, empty):
    inputs = INPUTS
    if empty:
        inputs = [INPUTS[1], with_teacher_view(training_input([], size=(64, 64)))]
    model = make_model("joint", mask=mask)
    losses = losses_of(model, inputs)
    assert set(TERMS) < set(losses)
    assert {"loss_cls", "loss_box_reg", "loss_rpn_cls", "loss_rpn_loc"} <= set(losses)
    assert ("loss_mask" in losses) == mask
    assert all(torch.isfinite(v) for v in losses.values())
    sum(losses.values()).backward()
    assert without_gradient(model) == []


@pytest.mark.parametrize("own_teacher", [True, False])
def test_in_joint_training_the_own_teacher_is_not_taught_by_eq_5(own_teacher):
    teacher = None if own_teacher else make_model("joint").backbone
    model = make_model("joint", teacher)
    losses = losses_of(model, INPUTS)
    sum(losses[name] for name in TERMS).backward()
    taught = {name for name, p in model.backbone.named_parameters() if p.grad is not None}
    extension = {f"extension.{name}" for name, _ in model.backbone.extension.named_parameters()}
    assert extension <= taught
    assert (taught == extension) == own_teacher


def test_joint_detection_losses_are_those_of_the_student_view():
    joint = make_model("joint")
    losses = losses_of(joint, INPUTS[:1])
    plain = make_model("")
    plain.load_state_dict(make_model("joint").state_dict())
    expected = losses_of(plain, INPUTS[:1])  # the batch means the same to every stage
    for name, value in expected.items():
        assert torch.allclose(losses[name], value, atol=1e-4), name


@pytest.mark.parametrize("norm", ["", "BN"])
def test_in_joint_training_the_statistics_are_those_of_one_pass_of_the_student(norm):
    joint, plain = (make_model(x, **{"MODEL.EFPN.NORM": norm}) for x in ("joint", ""))
    losses_of(joint, INPUTS[:1])
    losses_of(plain, INPUTS[:1])
    for name, value in plain.state_dict().items():
        if not name.endswith("num_batches_tracked"):
            assert torch.allclose(joint.state_dict()[name], value, atol=1e-5), name
    assert joint.backbone.bottom_up.training


@pytest.mark.parametrize("row", [0, 31, 62])
@pytest.mark.parametrize("column", [1, 30, 77])
def test_a_marker_is_at_the_same_cell_in_both_views(row, column):
    """One bright student pixel, 2x2 for the teacher, in an image of odd size with padding."""
    from efpn_d2.modeling.meta_arch.views import halve_image_list, pad_to_multiple

    image = torch.zeros(1, 3, 127, 159)
    image[..., 2 * row : 2 * row + 2, 2 * column : 2 * column + 2] = 1
    teacher = pad_to_multiple(image, 64)
    student = halve_image_list(teacher, [(127, 159)])
    assert teacher.shape[-2:] == (128, 192)
    assert student.image_sizes == [(64, 80)]
    assert student.tensor[0, 0].nonzero().tolist() == [[row, column]]
    box = [[2.0 * column, 2.0 * row, 2.0 * column + 2, 2.0 * row + 2]]
    instances = halve_instances(training_input(box, size=(127, 159))["instances"])
    assert instances.gt_boxes.tensor.tolist() == [[column, row, column + 1, row + 1]]
    assert instances.gt_masks.tensor[0].nonzero().tolist() == [[row, column]]
    # A stride-4 map of the teacher's view and a stride-2 map of the student's: the same cell.
    teacher_cell = F.max_pool2d(teacher, 4)[0, 0].nonzero().tolist()
    assert F.max_pool2d(student.tensor, 2)[0, 0].nonzero().tolist() == teacher_cell


def test_freezing_needs_something_to_train():
    cfg = make_config(**{"MODEL.EFPN.ROUTING": "none"})
    with pytest.raises(ValueError, match="no parameters below roi_heads.small_"):
        freeze_all_but(build_model(cfg), ("roi_heads.small_",))


def test_dropout_outside_of_frozen_parts_keeps_its_mode():
    model = torch.nn.Sequential(
        torch.nn.Linear(1, 1),
        torch.nn.Dropout(),
        torch.nn.Sequential(torch.nn.Linear(1, 1), torch.nn.Dropout()),
    ).train()
    model[2].requires_grad_(False)
    eval_frozen_modules(model)
    assert [m.training for m in (model[0], model[1], model[2], model[2][1])] == [
        True, True, False, False,
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"DISTILL.VIEW": "crop"}, "DISTILL.VIEW is 'crop'"),
        ({"DISTILL.LEVELS": ["p4"]}, r"DISTILL.LEVELS is \['p4'\]"),
        ({"DISTILL.LEVELS": []}, r"DISTILL.LEVELS is \[\]"),
    ],
)
def test_mistakes_are_one_clear_sentence(options, message):
    with pytest.raises(ValueError, match=message):
        make_model(**options)


def test_a_batch_without_the_teachers_view_is_refused():
    with pytest.raises(KeyError, match="DISTILL.VIEW is downsample, .* teacher_image: "):
        losses_of(make_model(), [training_input([])])


def test_proposals_are_drawn_on_the_students_image():
    model = make_model("joint", **{"VIS_PERIOD": 1})
    with EventStorage() as storage:
        model(INPUTS[:1])
    ((_, picture, _),) = storage._vis_data
    assert picture.shape == (3, 64, 2 * 96)


class Bare(Backbone):
    """A bottom-up network that has only what docs/extending.md asks for."""

    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def forward(self, x):
        return self.inner(x)

    def output_shape(self):
        return self.inner.output_shape()


@torch.no_grad()
def test_any_bottom_up_network_with_a_texture_has_maps_for_teacher_and_student():
    backbone = make_model("distill").eval().backbone
    images = torch.randn(1, 3, 128, 128)
    expected = [backbone.teacher_maps(images), backbone.student_maps(images)]
    backbone.bottom_up = Bare(backbone.bottom_up)
    found = [backbone.teacher_maps(images), backbone.student_maps(images)]
    for maps, others in zip(found, expected, strict=True):
        assert maps.keys() == others.keys()
        assert all(torch.equal(maps[k], others[k]) for k in maps)
