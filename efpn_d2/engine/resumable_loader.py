"""A training data loader that goes on exactly where an interrupted training stopped.

Detectron2's samplers restart their order whenever a training resumes, and its aspect-ratio grouping
keeps half-filled batches that no checkpoint holds. Here the batch of every iteration is a pure
function of (seed, rank, world size, batch size, iteration), found without reading an image, and the
random augmentation of an image is a function of the seed and its place in the stream.
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
    """One sample of the endless stream: which image, and the seed of its augmentation."""

    image: int
    seed: int


class ResumableBatchSampler(Sampler[list[SampleKey]]):
    """Endless batches of one rank, starting at any iteration.

    Epoch after epoch, all images are shuffled into one stream that every rank agrees on. The stream
    is cut into batches that hold images of one group only; incomplete batches wait for the next
    epoch. Batch k of the stream is trained by rank k % world_size in iteration k // world_size.

    Attributes:
        seed: base seed of order and augmentation, equal on all ranks. May be set before iterating.
        start_iteration: the iteration that the next ``iter()`` starts with.
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
            groups: for each image of the data set, the group that it may share a batch with.
            batch_size: images per batch of one rank.
            seed: see the class.
            repeat_factors: for each image, how often an epoch shows it on average; fractions are
                rounded at random per epoch. Default: once each.
            rank, world_size: of this process, and how many there are.

        Raises:
            ValueError: there is no image, or ``repeat_factors`` are not one per image.
        """
        if len(groups) == 0:
            raise ValueError("The training data set is empty: there is nothing to sample from.")
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
        """Images in the data set."""
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
        """Batches of the stream from the ``skip``-th on, rows of (position in stream, index)."""
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
        """Complete batches (B, batch_size, 2), each when its last image arrives; and the rest."""
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
    """Map the records of a data set, with all CPU generators seeded by the sample's key.

    So a sample looks the same whichever worker process makes it, and in a resumed training. A
    mapper that returns None (an unusable image) gets another record, drawn by the same seed.
    """

    def __init__(
        self, records: Sequence[dict[str, Any]], mapper: Callable[[dict[str, Any]], Any]
    ) -> None:
        self._records = records
        self._mapper = mapper

    def __len__(self) -> int:
        return len(self._records)

    def __getitem__(self, key: SampleKey) -> Any:
        """
        Raises:
            RuntimeError: the mapper refused very many records in a row.
        """
        index, seed = key
        with seeded_cpu_rng(seed):
            for _ in range(_MAX_UNUSABLE_IN_A_ROW):
                sample = self._mapper(self._records[index])
                if sample is not None:
                    return sample
                index = random.randrange(len(self))
        raise RuntimeError(
            f"The data set mapper returned None for {_MAX_UNUSABLE_IN_A_ROW} records in a row; "
            "check the mapper and the image files."
        )


def build_resumable_train_loader(
    cfg: CfgNode, mapper: Callable[[dict[str, Any]], Any] | None = None
) -> DataLoader[Any]:
    """Like ``detectron2.data.build_detection_train_loader(cfg)``, with an exactly resumable order.

    Honours the same config keys. ``DATALOADER.SAMPLER_TRAIN`` other than "TrainingSampler" and
    "RepeatFactorTrainingSampler", and data sets that are not lists of records, get Detectron2's
    own loader and a warning.

    Args:
        cfg: a config.
        mapper: from record to model input; default ``DetectionMapper(cfg, is_train=True)``.

    Returns:
        An endless loader of lists of ``SOLVER.IMS_PER_BATCH / world size`` mapped records.

    Raises:
        ValueError: the batch does not divide among the processes, a record lacks its size, objects
            lack masks or keypoints that are trained on, or ``DATA.BALANCE_CLASSES`` does not go
            with the sampler or the data set.
    """
    sampler_name = cfg.DATALOADER.SAMPLER_TRAIN
    if _balances_classes(cfg) and sampler_name != "TrainingSampler":
        raise ValueError(
            f"DATA.BALANCE_CLASSES repeats images itself, but DATALOADER.SAMPLER_TRAIN is "
            f"{sampler_name}: set it to TrainingSampler, or DATA.BALANCE_CLASSES to False."
        )
    records = _load_records(cfg)
    mapper = mapper or DetectionMapper(cfg, is_train=True)
    # What another mapper makes of the records is not known.
    if isinstance(records, list) and isinstance(mapper, (DatasetMapper, CopyPasteMapper)):
        check_objects(cfg, records)
    if sampler_name not in _RESUMABLE_SAMPLERS:
        logger.warning(
            f"DATALOADER.SAMPLER_TRAIN {sampler_name} restarts its order when training resumes; "
            f"{' and '.join(_RESUMABLE_SAMPLERS)} go on where they stopped."
        )
        return build_detection_train_loader(cfg, mapper=mapper, dataset=records)
    if not isinstance(records, list):
        if _balances_classes(cfg):
            raise ValueError("DATA.BALANCE_CLASSES needs training data sets of listed records.")
        logger.warning(
            "A training data set that is not a list of records restarts its order when training "
            "resumes."
        )
        return build_detection_train_loader(cfg, mapper=mapper, dataset=records)
    return DataLoader(
        SeededMapDataset(DatasetFromList(records, copy=False), mapper),
        batch_sampler=_build_batch_sampler(cfg, records),
        num_workers=cfg.DATALOADER.NUM_WORKERS,
        collate_fn=trivial_batch_collator,
        # Of its own, for starting workers must not draw from the generator of the training step.
        generator=torch.Generator(),
    )


def _load_records(cfg: CfgNode) -> Any:
    """The training data sets, as Detectron2's own loader has them."""
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
    """0 for images wider than high, else 1: those that Detectron2 batches together.

    Raises:
        ValueError: a record has no "width" or "height".
    """
    for record in records:
        if "width" not in record or "height" not in record:
            raise ValueError(
                f"The record of '{record.get('file_name')}' has no width and height, which "
                "batches of one orientation need; add them or set "
                "DATALOADER.ASPECT_RATIO_GROUPING False."
            )
    return [0 if record["width"] > record["height"] else 1 for record in records]
