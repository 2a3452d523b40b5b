import itertools
import random

import numpy as np
import pytest
import torch
from detectron2.data.common import AspectRatioGroupedDataset
from torch.utils.data import DataLoader

from efpn_d2.engine.resumable_loader import (
    ResumableBatchSampler,
    SampleKey,
    SeededMapDataset,
    aspect_ratio_groups,
    build_resumable_train_loader,
)
from tests.engine.tiny_training import NUM_IMAGES, register, tiny_config, unregister

pytestmark = pytest.mark.fast


def take(sampler, count, start=0):
    sampler.start_iteration = start
    return list(itertools.islice(sampler, count))


def raw_stream(size, count, **kwargs):
    """The stream before it is cut into batches."""
    batches = take(ResumableBatchSampler([0] * size, 1, **kwargs), count)
    return [key for batch in batches for key in batch]


def test_every_epoch_is_another_permutation():
    indices = [key.image for key in raw_stream(13, 3 * 13, seed=1)]
    epochs = [indices[i : i + 13] for i in (0, 13, 26)]
    assert all(sorted(epoch) == list(range(13)) for epoch in epochs)
    assert epochs[0] != epochs[1] != epochs[2] != epochs[0]


def test_no_two_samples_share_an_augmentation_seed():
    seeds = [key.seed for key in raw_stream(5, 500, seed=1)]
    assert len(set(seeds)) == len(seeds)


def test_seed_decides_order_and_augmentation():
    assert raw_stream(9, 30, seed=3) == raw_stream(9, 30, seed=3)
    other = raw_stream(9, 30, seed=4)
    assert [k.image for k in other] != [k.image for k in raw_stream(9, 30, seed=3)]
    assert {k.seed for k in other}.isdisjoint(k.seed for k in raw_stream(9, 30, seed=3))


@pytest.mark.parametrize("batch_size", [1, 2, 3, 8])
def test_batches_are_those_of_core_grouping(batch_size):
    """Grouping of indices equals Detectron2's grouping of loaded images."""
    wide = [True, True, False, True, True, False, True]
    groups = aspect_ratio_groups([{"width": 2 if w else 1, "height": 1.5} for w in wide])
    stream = raw_stream(len(wide), 60, seed=2)
    records = [{"width": 2 if wide[k.image] else 1, "height": 1.5, "key": k} for k in stream]
    expected = [[r["key"] for r in b] for b in AspectRatioGroupedDataset(records, batch_size)]

    sampler = ResumableBatchSampler(groups, batch_size, seed=2)
    assert take(sampler, len(expected)) == expected
    assert all(len({groups[k.image] for k in batch}) == 1 for batch in expected)


@pytest.mark.parametrize("world_size", [2, 3])
def test_ranks_share_the_stream_without_overlap(world_size):
    groups = [0, 1, 0, 0, 1, 0, 0, 0, 1, 0]
    whole = take(ResumableBatchSampler(groups, 2, seed=0), 6 * world_size)
    for rank in range(world_size):
        sampler = ResumableBatchSampler(groups, 2, seed=0, rank=rank, world_size=world_size)
        assert take(sampler, 6) == whole[rank::world_size]


@pytest.mark.parametrize("repeat_factors", [None, [1.0, 2.5, 1.0, 1.3, 1.0]])
@pytest.mark.parametrize("start", [1, 4, 11, 40])
def test_start_iteration_gives_the_suffix_of_the_stream(start, repeat_factors):
    sampler = ResumableBatchSampler(
        [0, 1, 0, 0, 1], 3, seed=7, repeat_factors=repeat_factors, rank=1, world_size=2
    )
    whole = take(sampler, 50)
    assert take(sampler, 50 - start, start=start) == whole[start:]


def test_repeat_factors_set_how_often_an_image_comes():
    epochs = 200
    sampler = ResumableBatchSampler([0] * 3, 1, seed=0, repeat_factors=[1.0, 2.0, 1.5])
    counts = np.stack(
        [np.bincount(sampler._epoch_order(0, epoch), minlength=3) for epoch in range(epochs)]
    )
    assert (counts[:, 0] == 1).all()
    assert (counts[:, 1] == 2).all()
    assert set(counts[:, 2]) == {1, 2}
    # Binomial with standard deviation 0.035.
    assert counts[:, 2].mean() == pytest.approx(1.5, abs=0.15)


def test_sampler_refuses_nothing_to_sample():
    with pytest.raises(ValueError, match="empty"):
        ResumableBatchSampler([], 2, seed=0)
    with pytest.raises(ValueError, match="2 entries for 3 images"):
        ResumableBatchSampler([0, 0, 0], 2, seed=0, repeat_factors=[1.0, 1.0])


def draw(record):
    """A mapper that reports what each random generator gives."""
    return record, random.random(), np.random.rand(), torch.rand(()).item()


@pytest.mark.parametrize("num_workers", [0, 2])
def test_augmentation_depends_on_the_place_in_the_stream_only(num_workers):
    dataset = SeededMapDataset(list(range(6)), draw)
    sampler = ResumableBatchSampler([0] * 6, 2, seed=3)
    expected = [[dataset[key] for key in batch] for batch in take(sampler, 8)]
    sampler.start_iteration = 3
    loader = DataLoader(
        dataset, batch_sampler=sampler, num_workers=num_workers, collate_fn=lambda batch: batch
    )
    assert list(itertools.islice(loader, 5)) == expected[3:]


def test_loading_leaves_the_random_state_of_the_training_alone():
    for seed_all in (random.seed, np.random.seed, torch.manual_seed):
        seed_all(11)
    expected = draw(None)
    for seed_all in (random.seed, np.random.seed, torch.manual_seed):
        seed_all(11)
    SeededMapDataset([0, 1], draw)[SampleKey(1, 99)]
    assert draw(None) == expected


def test_unusable_image_is_replaced_by_seed():
    dataset = SeededMapDataset(list(range(50)), lambda i: None if i < 25 else (i, random.random()))
    replacement = dataset[SampleKey(0, 5)]
    assert replacement[0] >= 25
    assert replacement == dataset[SampleKey(0, 5)]
    assert len({dataset[SampleKey(0, seed)][0] for seed in range(20)}) > 5


def test_only_unusable_images_end_in_one_sentence():
    with pytest.raises(RuntimeError, match="returned None for 100 records in a row"):
        SeededMapDataset([0, 1], lambda record: None)[SampleKey(0, 1)]


def test_grouping_needs_image_sizes():
    with pytest.raises(ValueError, match="'a.jpg' has no width and height"):
        aspect_ratio_groups([{"file_name": "a.jpg", "width": 3}])


@pytest.fixture
def dataset(tmp_path):
    register("loader_test", tmp_path)
    yield "loader_test"
    unregister("loader_test")


def test_loader_from_config(dataset, tmp_path):
    loader = build_resumable_train_loader(tiny_config(dataset, tmp_path))
    ids = []
    for batch in itertools.islice(loader, 3 * NUM_IMAGES):
        assert len(batch) == 2
        assert len({record["width"] > record["height"] for record in batch}) == 1
        ids += [record["image_id"] for record in batch]
    # Of 6 epochs, at most one image per orientation is still waiting for its batch.
    assert all(5 <= ids.count(i) <= 7 for i in range(NUM_IMAGES))


def test_loader_repeats_rare_categories(dataset, tmp_path):
    opts = ("DATALOADER.SAMPLER_TRAIN", "RepeatFactorTrainingSampler")
    common = build_resumable_train_loader(tiny_config(dataset, tmp_path, *opts))
    assert common.batch_sampler._repeat_factors.tolist() == [1.0] * NUM_IMAGES
    # Both categories are below this frequency.
    rare = tiny_config(dataset, tmp_path, *opts, "DATALOADER.REPEAT_THRESHOLD", 4.0)
    assert (build_resumable_train_loader(rare).batch_sampler._repeat_factors >= 2.0).all()


def test_other_samplers_are_core_with_a_warning(dataset, tmp_path, caplog):
    opts = ("DATALOADER.SAMPLER_TRAIN", "RandomSubsetTrainingSampler")
    cfg = tiny_config(dataset, tmp_path, *opts)
    cfg.DATALOADER.RANDOM_SUBSET_RATIO = 0.5
    loader = build_resumable_train_loader(cfg)
    assert "RandomSubsetTrainingSampler restarts its order" in caplog.text
    assert len(next(iter(loader))) == 2


def test_batch_must_divide_among_processes(dataset, tmp_path, monkeypatch):
    monkeypatch.setattr("detectron2.utils.comm.get_world_size", lambda: 3)
    with pytest.raises(ValueError, match="IMS_PER_BATCH 2 cannot be divided among 3 processes"):
        build_resumable_train_loader(tiny_config(dataset, tmp_path))
