"""Training data loader that resumes exactly where an interrupted training stopped.

Detectron2's samplers restart their order when a training resumes, and its aspect-ratio grouping
keeps partial batches that no checkpoint holds. Here the batch of an iteration is a pure function of
(seed, rank, world size, batch size, iteration), computed without reading images. The random
augmentation of an image is a function of the seed and its position in the stream.
"""

import itertools
import logging
import random
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from detectron2.config import CfgNode
from detectron2.data import (
    DatasetFromList,
    DatasetMapper,
    build_detection_train_loader,
    get_detection_dataset_dicts,
)
from detectron2.data.build import trivial_batch_collator
from detectron2.data.samplers import RepeatFactorTrainingSampler
from detectron2.utils import comm
from torch.utils.data import DataLoader, Dataset, Sampler

from efpn_d2.data.augmentation import CopyPasteMapper
from efpn_d2.data.class_balance import class_balance_factors
from efpn_d2.data.mappers import DetectionMapper
from efpn_d2.data.object_checks import check_objects
from efpn_d2.engine.seeding import Purpose, derive_seed, seeded_cpu_rng

logger = logging.getLogger(__name__)

_RESUMABLE_SAMPLERS = ("TrainingSampler", "RepeatFactorTrainingSampler")
_MAX_UNUSABLE_IN_A_ROW = 100


class SampleKey(NamedTuple):
    """One sample of the endless stream: the index of an image and the seed of its augmentation."""

    image: int
    seed: int


class ResumableBatchSampler(Sampler[list[SampleKey]]):
    """Endless batches of one rank, starting at any iteration.

    In each epoch, all images are shuffled into one stream that is the same on every rank. The
    stream is cut into batches of images of the same group; incomplete batches wait for the next
    epoch. Rank k % world_size trains batch k of the stream in iteration k // world_size.

    Attributes:
        seed: base seed of order and augmentation, equal on all ranks; may be set before iterating.
        start_iteration: the iteration with which the next ``iter()`` starts.
    """

    def __init__(
        self,
        groups: Sequence[int],
        batch_size: int,
        *,
        seed: int,
        repeat_factors: Sequence[float] | None = None,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        """
        Args:
            groups: group of each image of the dataset; a batch has images of one group.
            batch_size: images per batch of one rank.
            seed: see the class.
            repeat_factors: mean number of times an epoch shows each image; fractions are rounded at
                random in each epoch. Default: once each.
            rank: rank of this process.
            world_size: number of processes.

        Raises:
            ValueError: if there is no image, or ``repeat_factors`` does not have one entry per
                image.
        """
        if len(groups) == 0:
            raise ValueError("The training dataset is empty: there is nothing to sample from.")
        if repeat_factors is not None and len(repeat_factors) != len(groups):
            raise ValueError(
                f"repeat_factors has {len(repeat_factors)} entries for {len(groups)} images."
            )
        self._groups = np.asarray(groups, dtype=np.int64)
        self._repeat_factors = None if repeat_factors is None else torch.as_tensor(repeat_factors)
        self.batch_size = batch_size
        self.world_size = world_size
        self._rank = rank
        self.seed = seed
        self.start_iteration = 0

    @property
    def dataset_size(self) -> int:
        """Number of images in the dataset."""
        return len(self._groups)

    def __iter__(self) -> Iterator[list[SampleKey]]:
        seed = self.seed
        batches = self._batches_of_all_ranks(seed, skip=self.start_iteration * self.world_size)
        for batch in itertools.islice(batches, self._rank, None, self.world_size):
            yield [
                SampleKey(index, derive_seed(seed, Purpose.SAMPLE, position))
                for position, index in batch.tolist()
            ]

    def _batches_of_all_ranks(self, seed: int, skip: int) -> Iterator[np.ndarray]:
        """Yield the batches of the stream from number ``skip`` on, rows of (position, index)."""
        position = 0
        waiting = np.empty((0, 2), dtype=np.int64)
        for epoch in itertools.count():
            order = self._epoch_order(seed, epoch)
            positions = np.arange(position, position + len(order))
            position += len(order)
            pool = np.concatenate([waiting, np.stack([positions, order], axis=1)])
            batches, waiting = self._cut(pool)
            yield from batches[skip:]
            skip = max(skip - len(batches), 0)

    def _epoch_order(self, seed: int, epoch: int) -> np.ndarray:
        generator = torch.Generator().manual_seed(derive_seed(seed, Purpose.ORDER, epoch))
        indices = torch.arange(self.dataset_size)
        if self._repeat_factors is not None:
            fractions = torch.rand(self.dataset_size, generator=generator)
            repeats = torch.floor(self._repeat_factors + fractions).long()
            indices = indices.repeat_interleave(repeats)
        return indices[torch.randperm(len(indices), generator=generator)].numpy()

    def _cut(self, pool: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return complete batches (B, batch_size, 2), ordered by their last image, and the rest."""
        batches, rest = [], []
        groups = self._groups[pool[:, 1]]
        for group in np.unique(groups):
            members = pool[groups == group]
            complete = len(members) - len(members) % self.batch_size
            batches.append(members[:complete].reshape(-1, self.batch_size, 2))
            rest.append(members[complete:])
        stacked = np.concatenate(batches)
        return stacked[np.argsort(stacked[:, -1, 0])], np.concatenate(rest)


class SeededMapDataset(Dataset[Any]):
    """Map the records of a dataset, with all CPU generators seeded by the sample's key.

    A sample is then the same in every worker process and in a resumed training. If the mapper
    returns None (an unusable image), another record is drawn with the same seed.
    """

    def __init__(
        self, records: Sequence[dict[str, Any]], mapper: Callable[[dict[str, Any]], Any]
    ) -> None:
        self._records = records
        self._mapper = mapper

    def __len__(self) -> int:
        return len(self._records)

    def __getitem__(self, key: SampleKey) -> Any:
        """Map a record, with all CPU generators seeded.

        Raises:
            RuntimeError: if the mapper returns None for very many records in a row.
        """
        index, seed = key
        with seeded_cpu_rng(seed):
            for _ in range(_MAX_UNUSABLE_IN_A_ROW):
                sample = self._mapper(self._records[index])
                if sample is not None:
                    return sample
                index = random.randrange(len(self))
        raise RuntimeError(
            f"The dataset mapper returned None for {_MAX_UNUSABLE_IN_A_ROW} records in a row; "
            "check the mapper and the image files."
        )


def build_resumable_train_loader(
    cfg: CfgNode, mapper: Callable[[dict[str, Any]], Any] | None = None
) -> DataLoader[Any]:
    """Build the loader of ``build_detection_train_loader(cfg)`` with an exactly resumable order.

    It honors the same config keys. A ``DATALOADER.SAMPLER_TRAIN`` other than "TrainingSampler" and
    "RepeatFactorTrainingSampler", or a dataset that is not a list of records, gets Detectron2's own
    loader and a warning.

    Args:
        cfg: a config.
        mapper: maps a record to a model input; default ``DetectionMapper(cfg, is_train=True)``.

    Returns:
        An endless loader of lists of ``SOLVER.IMS_PER_BATCH / world size`` mapped records.

    Raises:
        ValueError: if the batch cannot be divided among the processes, a record has no size,
            objects lack masks or keypoints that are trained, or ``DATA.BALANCE_CLASSES`` does not
            fit the sampler or the dataset.
    """
    sampler_name = cfg.DATALOADER.SAMPLER_TRAIN
    if _balances_classes(cfg) and sampler_name != "TrainingSampler":
        raise ValueError(
            f"DATA.BALANCE_CLASSES repeats images itself, but DATALOADER.SAMPLER_TRAIN is "
            f"{sampler_name}: set it to TrainingSampler, or DATA.BALANCE_CLASSES to False."
        )
    records = _load_records(cfg)
    mapper = mapper or DetectionMapper(cfg, is_train=True)
    # The needs of other mappers are unknown.
    if isinstance(records, list) and isinstance(mapper, (DatasetMapper, CopyPasteMapper)):
        check_objects(cfg, records)
    if sampler_name not in _RESUMABLE_SAMPLERS:
        logger.warning(
            f"DATALOADER.SAMPLER_TRAIN {sampler_name} restarts its order when training resumes; "
            f"{' and '.join(_RESUMABLE_SAMPLERS)} continue it."
        )
        return build_detection_train_loader(cfg, mapper=mapper, dataset=records)
    if not isinstance(records, list):
        if _balances_classes(cfg):
            raise ValueError(
                "DATA.BALANCE_CLASSES needs training datasets that are lists of records."
            )
        logger.warning(
            "A training dataset that is not a list of records restarts its order when training "
            "resumes."
        )
        return build_detection_train_loader(cfg, mapper=mapper, dataset=records)
    return DataLoader(
        SeededMapDataset(DatasetFromList(records, copy=False), mapper),
        batch_sampler=_build_batch_sampler(cfg, records),
        num_workers=cfg.DATALOADER.NUM_WORKERS,
        collate_fn=trivial_batch_collator,
        # Starting workers must not draw from the generator of the training step.
        generator=torch.Generator(),
    )


def _load_records(cfg: CfgNode) -> Any:
    """Load the training datasets as Detectron2's own loader does."""
    return get_detection_dataset_dicts(
        cfg.DATASETS.TRAIN,
        filter_empty=cfg.DATALOADER.FILTER_EMPTY_ANNOTATIONS,
        min_keypoints=(
            cfg.MODEL.ROI_KEYPOINT_HEAD.MIN_KEYPOINTS_PER_IMAGE if cfg.MODEL.KEYPOINT_ON else 0
        ),
        proposal_files=cfg.DATASETS.PROPOSAL_FILES_TRAIN if cfg.MODEL.LOAD_PROPOSALS else None,
    )


def _balances_classes(cfg: CfgNode) -> bool:
    return "DATA" in cfg and cfg.DATA.BALANCE_CLASSES


def _build_batch_sampler(cfg: CfgNode, records: list[dict[str, Any]]) -> ResumableBatchSampler:
    world_size = comm.get_world_size()
    total_batch_size = cfg.SOLVER.IMS_PER_BATCH
    if total_batch_size < world_size or total_batch_size % world_size:
        raise ValueError(
            f"SOLVER.IMS_PER_BATCH {total_batch_size} cannot be divided among {world_size} "
            f"processes; make it a multiple of {world_size}."
        )
    repeat_factors = None
    if cfg.DATALOADER.SAMPLER_TRAIN == "RepeatFactorTrainingSampler":
        repeat_factors = RepeatFactorTrainingSampler.repeat_factors_from_category_frequency(
            records, cfg.DATALOADER.REPEAT_THRESHOLD, sqrt=cfg.DATALOADER.REPEAT_SQRT
        )
    elif _balances_classes(cfg):
        repeat_factors = class_balance_factors(
            records, cfg.DATA.BALANCE_INSTANCES, cfg.DATA.BALANCE_MAX_REPEAT
        )
        logger.info(
            "DATA.BALANCE_CLASSES: an epoch shows %d images %.0f times",
            len(records),
            repeat_factors.sum(),
        )
    return ResumableBatchSampler(
        aspect_ratio_groups(records)
        if cfg.DATALOADER.ASPECT_RATIO_GROUPING
        else [0] * len(records),
        total_batch_size // world_size,
        seed=cfg.SEED if cfg.SEED >= 0 else comm.shared_random_seed(),
        repeat_factors=repeat_factors,
        rank=comm.get_rank(),
        world_size=world_size,
    )


def aspect_ratio_groups(records: Sequence[dict[str, Any]]) -> list[int]:
    """Return 0 for images wider than high, else 1: the groups that Detectron2 batches together.

    Raises:
        ValueError: if a record has no "width" or "height".
    """
    for record in records:
        if "width" not in record or "height" not in record:
            raise ValueError(
                f"The record of '{record.get('file_name')}' has no width and height, which "
                "batches of one orientation need; add them or set "
                "DATALOADER.ASPECT_RATIO_GROUPING False."
            )
    return [0 if record["width"] > record["height"] else 1 for record in records]
