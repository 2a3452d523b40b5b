import copy
import io
import os
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from detectron2.checkpoint import DetectionCheckpointer
from detectron2.modeling import build_model

from efpn_d2.checkpoint import EFPNCheckpointer
from tests.engine.tiny_training import STOCK_OPTS, tiny_config

COPIED = ("box_head.fc1.weight", "box_head.fc2.bias", "box_predictor.cls_score.weight")


def build(*opts):
    return build_model(tiny_config("unused", ".", *opts))


@pytest.fixture(scope="module")
def stock_file(tmp_path_factory):
    folder = tmp_path_factory.mktemp("stock")
    torch.manual_seed(1)
    DetectionCheckpointer(build(*STOCK_OPTS), str(folder)).save("stock")
    return str(folder / "stock.pth")


def equal_heads(model):
    state = model.state_dict()
    names = [k.split(".", 1)[1] for k in state if k.startswith("roi_heads.small_")]
    assert names
    return [
        name
        for name in names
        if torch.equal(
            state[f"roi_heads.{name}"], state[f"roi_heads.{name.removeprefix('small_')}"]
        )
    ]


def test_small_heads_start_from_those_of_a_stock_detector(stock_file, caplog):
    caplog.set_level("INFO", "efpn_d2")
    model = build()
    EFPNCheckpointer(model).load(stock_file)
    stock = torch.load(stock_file)["model"]
    for name in COPIED:
        small = model.state_dict()[f"roi_heads.small_{name}"]
        assert torch.equal(small, stock[f"roi_heads.{name}"])
    assert "roi_heads.small_box_head starts from the weights of roi_heads.box_head" in caplog.text
    missing = [r.getMessage() for r in caplog.records if "not found in the checkpoint" in r.msg]
    assert len(missing) == 1
    assert "extension" in missing[0]
    assert "small_" not in missing[0]


def test_small_mask_head_starts_from_the_stock_mask_head(tmp_path):
    mask = ("MODEL.MASK_ON", True, "MODEL.ROI_MASK_HEAD.CONV_DIM", 16)
    DetectionCheckpointer(build(*STOCK_OPTS, *mask), str(tmp_path)).save("stock")
    model = build(*mask)
    EFPNCheckpointer(model).load(str(tmp_path / "stock.pth"))
    equal = equal_heads(model)
    assert "small_mask_head.predictor.weight" in equal
    assert len(equal) == sum(k.startswith("roi_heads.small_") for k in model.state_dict())


def test_small_cascade_heads_start_from_their_stages(tmp_path):
    cascade = ("MODEL.ROI_BOX_HEAD.CLS_AGNOSTIC_BBOX_REG", True)
    stock = build(*STOCK_OPTS, "MODEL.ROI_HEADS.NAME", "CascadeROIHeads", *cascade)
    DetectionCheckpointer(stock, str(tmp_path)).save("stock")
    model = build("MODEL.ROI_HEADS.NAME", "EFPNCascadeROIHeads", *cascade)
    EFPNCheckpointer(model).load(str(tmp_path / "stock.pth"))
    heads = model.roi_heads
    for stage in range(3):
        small, rest = heads.small_box_head[stage].fc1.weight, heads.box_head[stage].fc1.weight
        assert torch.equal(small, rest)
        assert torch.equal(small, stock.roi_heads.box_head[stage].fc1.weight)


def test_both_heads_start_equal_with_another_number_of_classes(stock_file):
    model = build("MODEL.ROI_HEADS.NUM_CLASSES", 5)
    EFPNCheckpointer(model).load(stock_file)
    assert "small_box_predictor.cls_score.weight" in equal_heads(model)
    stock = torch.load(stock_file)["model"]
    assert torch.equal(
        model.roi_heads.small_box_head.fc1.weight, stock["roi_heads.box_head.fc1.weight"]
    )


def test_own_small_heads_are_kept(tmp_path):
    first = build()
    EFPNCheckpointer(first, str(tmp_path)).save("own")
    model = build()
    EFPNCheckpointer(model).load(str(tmp_path / "own.pth"))
    assert torch.equal(
        model.roi_heads.small_box_head.fc1.weight, first.roi_heads.small_box_head.fc1.weight
    )
    assert "small_box_head.fc1.weight" not in equal_heads(model)


@pytest.mark.parametrize("source", ["nothing", "backbone", "switched_off"])
def test_small_heads_are_not_touched_without_reason(source, tmp_path, stock_file):
    model = build()
    before = copy.deepcopy(model.roi_heads.state_dict())
    if source == "nothing":
        EFPNCheckpointer(model).load("")
    elif source == "backbone":
        conv = model.backbone.bottom_up.stem.conv1.weight.detach().numpy()
        with open(tmp_path / "imagenet.pkl", "wb") as file:
            pickle.dump({"model": {"stem.conv1.weight": conv + 1}, "__author__": "x"}, file)
        EFPNCheckpointer(model).load(str(tmp_path / "imagenet.pkl"))
    else:
        EFPNCheckpointer(model, init_from_stock=False).load(stock_file)
    after = model.roi_heads.state_dict()
    small = [k for k in after if k.startswith("small_")]
    assert small
    assert all(torch.equal(before[k], after[k]) for k in small)


def test_small_heads_start_from_a_caffe2_style_file(tmp_path):
    """Its keys have no prefix, and are matched by Detectron2's heuristics."""
    model = build()
    shape = tuple(model.roi_heads.box_head.fc1.weight.shape)
    blobs = {"fc6_w": np.full(shape, 0.25, np.float32), "fc6_b": np.zeros(shape[0], np.float32)}
    with open(tmp_path / "caffe2.pkl", "wb") as file:
        pickle.dump({"blobs": blobs}, file)
    EFPNCheckpointer(model).load(str(tmp_path / "caffe2.pkl"))
    assert (model.roi_heads.box_head.fc1.weight == 0.25).all()
    assert (model.roi_heads.small_box_head.fc1.weight == 0.25).all()


@pytest.mark.parametrize(
    ("preset", "copied"),
    [
        ("paper", ["lateral.weight", "lateral.bias", "output.weight", "output.bias"]),
        ("reference", ["lateral.weight", "output.weight"]),
    ],
)
def test_p2_prime_starts_with_the_convolutions_of_p2(preset, copied, stock_file):
    model = build("MODEL.EFPN.PRESET", preset)
    for parameter in model.backbone.extension.parameters():
        torch.nn.init.constant_(parameter, 7.0)
    before = copy.deepcopy(model.backbone.extension.state_dict())
    EFPNCheckpointer(model).load(stock_file)
    after, stock = model.backbone.extension.state_dict(), torch.load(stock_file)["model"]
    assert {k for k in after if not torch.equal(after[k], before[k])} == set(copied)
    for key in copied:
        name = key.replace("lateral", "fpn_lateral2").replace("output", "fpn_output2")
        assert torch.equal(after[key], stock[f"backbone.{name}"])


def test_a_stock_detector_starts_with_a_p2_prime_like_p2_of_twice_the_scale(stock_file):
    """What the initialisation is for: the correlation with the map that P'2 is to resemble."""
    torch.manual_seed(0)
    image = torch.nn.functional.interpolate(torch.randn(1, 3, 32, 32), scale_factor=8.0) * 50
    small = torch.nn.functional.avg_pool2d(image, 2)
    correlation = {}
    for init in (True, False):
        model = build("MODEL.EFPN.PRESET", "paper")
        EFPNCheckpointer(model, init_from_stock=init).load(stock_file)
        backbone = model.backbone.eval()
        with torch.no_grad():
            maps = backbone(small)["p2_prime"], backbone.teacher_maps(image)["p2_prime"]
        correlation[init] = torch.corrcoef(torch.stack([m.flatten() for m in maps]))[0, 1].item()
    assert correlation[True] > 0.5 > abs(correlation[False])


@pytest.mark.fast
def test_crash_while_writing_keeps_the_previous_checkpoint(tmp_path, monkeypatch):
    model = torch.nn.Linear(2, 2)
    checkpointer = EFPNCheckpointer(model, str(tmp_path))
    checkpointer.save("model_final", iteration=1)
    before = copy.deepcopy(model.state_dict())
    torch.nn.init.zeros_(model.weight)

    def full_disk(data, file):
        buffer = io.BytesIO()
        save(data, buffer)
        file.write(buffer.getvalue()[: len(buffer.getvalue()) // 2])
        raise OSError("No space left on device")

    save = torch.save
    monkeypatch.setattr(torch, "save", full_disk)
    for name in ("model_final", "model_0000001"):
        with pytest.raises(OSError, match="No space left"):
            checkpointer.save(name, iteration=2)
    monkeypatch.undo()

    assert sorted(p.name for p in tmp_path.iterdir()) == ["last_checkpoint", "model_final.pth"]
    other = torch.nn.Linear(2, 2)
    rest = EFPNCheckpointer(other, str(tmp_path)).resume_or_load("")
    assert rest == {"iteration": 1}
    assert torch.equal(other.weight, before["weight"])


@pytest.mark.fast
def test_crash_while_tagging_keeps_the_previous_tag(tmp_path, monkeypatch):
    checkpointer = EFPNCheckpointer(torch.nn.Linear(2, 2), str(tmp_path))
    checkpointer.save("model_0000001")

    def power_cut(source, target):
        if target.endswith("last_checkpoint"):
            raise OSError("power cut")
        replace(source, target)

    replace = os.replace
    monkeypatch.setattr(os, "replace", power_cut)
    with pytest.raises(OSError, match="power cut"):
        checkpointer.save("model_0000002")
    assert checkpointer.get_checkpoint_file().endswith("model_0000001.pth")


def test_a_damaged_file_is_named(stock_file, tmp_path):
    path = tmp_path / "half.pth"
    path.write_bytes(Path(stock_file).read_bytes()[:100_000])
    with pytest.raises(ValueError, match="half.pth' cannot be read as a checkpoint: .*zip"):
        EFPNCheckpointer(build(), str(tmp_path)).load(str(path))
