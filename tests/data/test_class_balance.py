import pytest
import torch
from detectron2.config import get_cfg
from detectron2.data import DatasetCatalog

from efpn_d2.config import add_efpn_config
from efpn_d2.data.class_balance import class_balance_factors, count_instances
from efpn_d2.engine.resumable_loader import build_resumable_train_loader

pytestmark = pytest.mark.fast


def record(*categories, crowd=()):
    objects = [{"category_id": c, "iscrowd": 0} for c in categories]
    objects += [{"category_id": c, "iscrowd": 1} for c in crowd]
    return {"annotations": objects, "width": 20, "height": 10, "file_name": "x"}


# Class 0: 8 objects, class 1: 2, class 2: 1 and a crowd.
RECORDS = [record(0, 0, 0, 0), record(0, 0, 1), record(0, 1), record(0, 2, crowd=(2,)), record()]


def test_counts_are_of_objects_and_not_of_crowds():
    assert count_instances(RECORDS) == {0: 8, 1: 2, 2: 1}


def test_factors_by_hand():
    # Class 0 has enough, class 1 needs 6 / 2, class 2 needs 6 / 1; limited to 5.
    assert class_balance_factors(RECORDS, 6, 20.0).tolist() == [1, 3, 3, 6, 1]
    assert class_balance_factors(RECORDS, 6, 5.0).tolist() == [1, 3, 3, 5, 1]
    assert class_balance_factors(RECORDS, 1, 20.0).tolist() == [1] * 5


def test_each_class_has_at_least_its_number_unless_limited():
    generator = torch.Generator().manual_seed(0)
    weights = 0.5 ** torch.arange(8.0)
    records = [
        record(*torch.multinomial(weights, 3, True, generator=generator).tolist())
        for _ in range(300)
    ]
    factors = class_balance_factors(records, 100, 1000.0)
    for category in range(8):
        shown = sum(
            float(f) * count_instances([r])[category] for f, r in zip(factors, records, strict=True)
        )
        assert shown >= 99.9


@pytest.mark.parametrize("instances, max_repeat", [(0, 2.0), (10, 0.5)])
def test_numbers_out_of_range(instances, max_repeat):
    with pytest.raises(ValueError, match="must be at least 1"):
        class_balance_factors(RECORDS, instances, max_repeat)


@pytest.fixture
def cfg():
    DatasetCatalog.register("balance_test", lambda: [dict(r) for r in RECORDS])
    config = get_cfg()
    add_efpn_config(config)
    config.DATASETS.TRAIN = ("balance_test",)
    config.DATALOADER.NUM_WORKERS = 0
    config.DATALOADER.FILTER_EMPTY_ANNOTATIONS = False
    config.SOLVER.IMS_PER_BATCH = 1
    config.SEED = 7
    config.DATA.BALANCE_INSTANCES = 6
    yield config
    DatasetCatalog.remove("balance_test")


def shown(cfg, number, start=0):
    """How many objects each of ``number`` samples has, from iteration ``start`` on."""
    loader = build_resumable_train_loader(cfg, mapper=lambda r: len(r["annotations"]))
    loader.batch_sampler.start_iteration = start
    stream = iter(loader)
    return [next(stream)[0] for _ in range(number)]


def test_the_loader_shows_rare_classes_more_often(cfg):
    epoch = shown(cfg, 5)
    assert sorted(epoch) == [0, 2, 3, 3, 4]
    cfg.DATA.BALANCE_CLASSES = True
    epoch = shown(cfg, 14)
    # 1 + 3 + 3 + 6 + 1 images; by their numbers of objects: 4, 3, 2, 3 (with the crowd), 0.
    assert sorted(epoch) == [0, 2, 2, 2, *[3] * 9, 4]


def test_a_resumed_loader_goes_on_where_it_stopped(cfg):
    cfg.DATA.BALANCE_CLASSES = True
    assert shown(cfg, 40)[17:] == shown(cfg, 23, start=17)


def test_it_does_not_go_with_another_sampler(cfg):
    cfg.DATA.BALANCE_CLASSES = True
    for name in ("RepeatFactorTrainingSampler", "RandomSubsetTrainingSampler"):
        cfg.DATALOADER.SAMPLER_TRAIN = name
        with pytest.raises(ValueError, match=f"DATALOADER.SAMPLER_TRAIN is {name}"):
            build_resumable_train_loader(cfg, mapper=len)
