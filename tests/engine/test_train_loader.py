"""What ``cfg.DATA`` switches on reaches the training of every stage, and stays resumable."""

import numpy as np
import pytest
import torch
from detectron2.config import get_cfg
from detectron2.data import DatasetCatalog
from detectron2.structures import BoxMode
from PIL import Image

from efpn_d2.config import add_efpn_config
from efpn_d2.engine import DistillationTrainer, EFPNTrainer

pytestmark = pytest.mark.fast


@pytest.fixture
def cfg(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (60, 80, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    box = {
        "bbox": [10.0, 10.0, 8.0, 8.0],
        "bbox_mode": BoxMode.XYWH_ABS,
        "category_id": 0,
        "iscrowd": 0,
    }
    record = {"file_name": str(tmp_path / "a.png"), "width": 80, "height": 60, "image_id": 1}
    DatasetCatalog.register("train_loader_test", lambda: [{**record, "annotations": [box]}])
    config = get_cfg()
    add_efpn_config(config)
    config.DATASETS.TRAIN = ("train_loader_test",)
    config.DATALOADER.NUM_WORKERS = 0
    config.SOLVER.IMS_PER_BATCH = 1
    config.SEED = 3
    config.INPUT.MIN_SIZE_TRAIN = (64,)
    yield config
    DatasetCatalog.remove("train_loader_test")


def samples(trainer, cfg, number, start=0):
    loader = trainer.build_train_loader(cfg)
    loader.batch_sampler.start_iteration = start
    stream = iter(loader)
    return [next(stream)[0] for _ in range(number)]


@pytest.mark.parametrize(
    "trainer, stage",
    [(EFPNTrainer, ""), (DistillationTrainer, "base"), (DistillationTrainer, "distill")],
)
def test_in_every_stage(cfg, trainer, stage):
    cfg.DISTILL.STAGE = stage
    (plain,) = samples(trainer, cfg, 1)
    assert len(plain["instances"]) == 1
    assert plain["image"].shape[1] == 64
    assert ("teacher_image" in plain) == (stage == "distill")
    assert plain["image"].dtype == torch.uint8
    cfg.DATA.COPY_PASTE_PROBABILITY = 1.0
    cfg.DATA.SCALE_JITTER = [0.5, 0.75]
    cfg.DATA.COLOR_JITTER = 0.5
    for sample in samples(trainer, cfg, 5):
        assert len(sample["instances"]) > 1
        assert 32 <= sample["image"].shape[1] <= 48
        # The boxes are 8 of 60 pixels high, whatever the scale.
        heights = sample["instances"].gt_boxes.tensor[:, [1, 3]].diff(dim=1)
        scaled = sample["image"].shape[1]
        if stage == "distill":  # of which the student's odd side is rounded up
            scaled = sample["teacher_image"].shape[1] / 2
        expected = torch.full_like(heights, 8 / 60 * scaled)
        torch.testing.assert_close(heights, expected, rtol=1e-4, atol=0.0)


def test_a_resumed_training_sees_the_same_samples(cfg):
    cfg.DATA.COPY_PASTE_PROBABILITY = 0.5
    cfg.DATA.SCALE_JITTER = [0.5, 1.5]
    cfg.DATA.COLOR_JITTER = 0.5
    whole = samples(EFPNTrainer, cfg, 6)[3:]
    resumed = samples(EFPNTrainer, cfg, 3, start=3)
    for one, other in zip(whole, resumed, strict=True):
        assert torch.equal(one["image"], other["image"])
        boxes = one["instances"].gt_boxes.tensor, other["instances"].gt_boxes.tensor
        assert torch.equal(*boxes)
