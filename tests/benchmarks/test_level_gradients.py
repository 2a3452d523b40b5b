import copy
import itertools
import json

import level_gradients
import pytest
import torch
from ablation_rows import base_config
from detectron2.modeling import build_model, poolers
from detectron2.structures import Boxes, Instances
from level_log import measure, summarize, watch
from row_spec import PROTOCOLS

from efpn_d2.engine.stages import stage_configs

LEVELS = ("p2", "p3", "p4", "p5", "p6")
NAN = float("nan")


def make_model(cem):
    cfg = base_config(PROTOCOLS["small"], "native1x", 0)
    cfg.MODEL.DEVICE = "cpu"
    cfg.MODEL.EFPN_BS.CEM_ENABLED = cem
    torch.manual_seed(0)
    return build_model(stage_configs(cfg)[0])


def make_batch():
    batch = []
    for side in (8.0, 12.0):
        instances = Instances((96, 96))
        instances.gt_boxes = Boxes(torch.tensor([[20.0, 20.0, 20 + side, 20 + side]]))
        instances.gt_classes = torch.zeros(1, dtype=torch.int64)
        image = torch.rand(3, 96, 96, generator=torch.Generator().manual_seed(int(side))) * 255
        batch.append({"image": image, "instances": instances})
    return batch


def sample_only(model, monkeypatch, positives, negatives):
    """Let the RPN sample so many of the first anchors of these levels, in each image."""

    def sample(anchors, gt_instances):
        labels = []
        for level, boxes in zip(LEVELS, anchors, strict=True):
            own = torch.full((len(boxes),), -1)
            first, last = positives.get(level, 0), positives.get(level, 0) + negatives.get(level, 0)
            own[:first], own[first:last] = 1, 0
            labels.append(own)
        total = sum(map(len, anchors))
        boxes = [x.gt_boxes.tensor[:1].expand(total, 4) for x in gt_instances]
        return [torch.cat(labels) for _ in gt_instances], boxes

    monkeypatch.setattr(model.proposal_generator, "label_and_sample_anchors", sample)


@pytest.mark.fast
@pytest.mark.parametrize("cem", [False, True])
def test_a_level_that_nothing_reads_learns_through_cem_alone(cem, monkeypatch):
    model = make_model(cem)
    sample_only(model, monkeypatch, {"p2": 2, "p3": 1}, {"p2": 5, "p4": 3})
    before = copy.deepcopy(dict(model.named_parameters()))
    levels = summarize(LEVELS, measure(model, [make_batch(), make_batch()], seed=0))
    assert [levels[x]["count"]["positive_anchors"] for x in LEVELS] == [8, 4, 0, 0, 0]
    assert [levels[x]["count"]["sampled_anchors"] for x in LEVELS] == [28, 4, 12, 0, 0]
    assert [levels[x]["share"]["rois"] for x in LEVELS] == [1, 0, 0, 0, 0]
    assert [levels[x]["images_without"]["unread"] for x in LEVELS] == [0, 0, 0, 1, 1]
    assert levels["p5"]["zero_output_conv_gradient"] == (0.0 if cem else 1.0)
    assert (levels["p5"]["gradient_norm"]["map"] > 0) == cem
    # What is below the output convolution learns in any case, by way of the lower levels.
    assert levels["p5"]["gradient_norm"]["lateral_conv"] > 0
    assert levels["p6"]["gradient_norm"]["output_conv"] is None
    assert all(torch.equal(x, before[name]) for name, x in model.named_parameters())


@pytest.mark.fast
def test_p5_learns_from_what_reads_p6(monkeypatch):
    model = make_model(cem=False)
    sample_only(model, monkeypatch, {"p2": 1}, {"p6": 1})
    levels = summarize(LEVELS, measure(model, [make_batch()], seed=0))
    assert levels["p5"]["count"]["sampled_anchors"] == 0
    assert levels["p5"]["images_without"]["sampled_anchors"] == 1
    assert levels["p5"]["images_without"]["unread"] == 0
    assert levels["p5"]["gradient_norm"]["output_conv"] > 0


@pytest.mark.fast
def test_boxes_are_counted_by_image_and_level_and_the_wrappers_are_removed():
    model = make_model(cem=False)
    assign = poolers.assign_boxes_to_levels
    sides = [[10.0, 224.0], [448.0], []]
    boxes = [Boxes(torch.tensor([[0, 0, x, x] for x in s]).reshape(-1, 4)) for s in sides]
    with watch(model) as seen:
        assigned = poolers.assign_boxes_to_levels(boxes, 2, 5, 224, 4)
        assert "label_and_sample_anchors" in vars(model.proposal_generator)
    assert assigned.tolist() == [0, 2, 3]
    assert seen["rois"].tolist() == [[1, 0, 1, 0, 0], [0, 0, 0, 1, 0], [0, 0, 0, 0, 0]]
    assert poolers.assign_boxes_to_levels is assign
    assert "label_and_sample_anchors" not in vars(model.proposal_generator)
    assert not model.backbone._forward_hooks


@pytest.mark.fast
def test_summary_by_hand():
    def one_pass(positives, norms):
        counts = torch.tensor(positives)
        norms = torch.tensor(norms, dtype=torch.float64)
        return {
            **{"positive_anchors": counts, "sampled_anchors": 2 * counts, "rois": 0 * counts},
            **{"map": norms.nan_to_num(1.0), "output_conv": norms, "lateral_conv": norms},
        }

    passes = [one_pass([[3, 0], [1, 0]], [3.0, NAN]), one_pass([[0, 1], [0, 0]], [0.0, NAN])]
    low, high = summarize(("p5", "p6"), passes).values()
    assert (low["count"]["positive_anchors"], high["count"]["positive_anchors"]) == (4, 1)
    assert (low["share"]["positive_anchors"], high["share"]["positive_anchors"]) == (0.8, 0.2)
    assert (low["share"]["map"], high["share"]["map"]) == (0.6, 0.4)
    assert low["squared_share"]["map"] == pytest.approx(9 / 11, abs=1e-6)
    assert (low["share"]["output_conv"], high["share"]["output_conv"]) == (1.0, None)
    assert low["share"]["rois"] is None
    assert low["gradient_norm"]["output_conv"] == 1.5
    assert low["images_without"]["positive_anchors"] == 0.5
    assert low["batches_without"]["positive_anchors"] == 0.5
    assert high["images_without"]["positive_anchors"] == 0.75
    # P6 is read in one of the images without an anchor of P5.
    assert low["images_without"]["unread"] == 0.25
    assert low["batches_without"]["unread"] == 0
    assert low["zero_output_conv_gradient"] == 0.5
    assert high["zero_output_conv_gradient"] is None


@pytest.mark.slow
def test_both_pyramids_get_the_same_and_the_record_says_what_was_run(tmp_path, monkeypatch):
    seen = []

    def watched_measure(model, batches, seed):
        state = {k: v.clone() for k, v in model.state_dict().items()}
        seen.append((state, [x["image"] for batch in batches for x in batch]))
        return measure(model, batches, seed)

    monkeypatch.setattr(level_gradients, "measure", watched_measure)
    options = "--batches 1 --iterations 2 --finetune 2 --train-images 8 --max-sizes 48 16"
    folders = ["--output", str(tmp_path / "output"), "--results", str(tmp_path)]
    level_gradients.main([*options.split(), *folders])
    record = json.loads((tmp_path / "level_gradients.json").read_text())
    assert record["base"] == {"iterations": 2, "max_object_size": 48}
    assert record["finetune"]["iterations"] == 2
    labels = [(r["max_object_size"], r["weights"], r["pyramid"]) for r in record["rows"]]
    assert labels == [
        (size, weights, pyramid)
        for size in (48, 16)
        for weights in ("new", "trained", "finetuned")
        for pyramid in ("FPN", "FPN + CEM")
    ]
    for i in range(0, len(labels), 2):
        stock, cem = record["rows"][i]["levels"], record["rows"][i + 1]["levels"]
        for level, name in itertools.product(LEVELS, ("positive_anchors", "sampled_anchors")):
            assert stock[level]["count"][name] == cem[level]["count"][name]
        (weights, images), (cem_weights, cem_images) = seen[i], seen[i + 1]
        assert all(map(torch.equal, images, cem_images))
        assert any(key.startswith("backbone.enhancement.cem.") for key in cem_weights)
        same = all(torch.equal(value, cem_weights[key]) for key, value in weights.items())
        assert same == (labels[i][1] != "finetuned")
    assert not all(map(torch.equal, seen[0][1], seen[-1][1]))
