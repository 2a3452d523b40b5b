"""The hook that makes a resumed training the uninterrupted one."""

import logging
from typing import Any

from detectron2.engine import HookBase
from detectron2.utils import comm
from detectron2.utils.env import seed_all_rng
from torch.utils.data import DataLoader

from efpn_d2.engine.resumable_loader import ResumableBatchSampler
from efpn_d2.engine.seeding import Purpose, derive_seed

logger = logging.getLogger(__name__)


class ResumeHook(HookBase):
    """Tie all randomness of a training to its base seed, ``seed``, and the iteration.

    Before training it moves the data loader to the first iteration to run; before each step it
    seeds the random generators of this process from (base seed, rank, iteration). The base seed is
    kept in the checkpoint, and goes before ``SEED`` of the config when a training resumes. With the
    iteration, which Detectron2 keeps there, it is the complete random state of every rank. So
    neither an evaluation in between nor an interruption changes what follows.
    """

    def __init__(self, data_loader: DataLoader[Any]) -> None:
        """
        Args:
            data_loader: the trainer's; the base seed is that of its sampler. A loader without a
                :class:`ResumableBatchSampler` is left alone, and restarts its order.
        """
        sampler = getattr(data_loader, "batch_sampler", None)
        self._sampler = sampler if isinstance(sampler, ResumableBatchSampler) else None
        self.seed = comm.shared_random_seed() if self._sampler is None else self._sampler.seed

    def before_train(self) -> None:
        """Agree on the seed, and move the data loader to the first iteration."""
        # Only the ranks that could read the checkpoint know its seed; rank 0 always can.
        self.seed = comm.all_gather(self.seed)[0]
        if self._sampler is not None:
            self._sampler.seed = self.seed
            self._sampler.start_iteration = self.trainer.start_iter

    def before_step(self) -> None:
        """Seed all generators of this process for the iteration."""
        seed_all_rng(derive_seed(self.seed, Purpose.STEP, comm.get_rank(), self.trainer.iter))

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint must hold."""
        return {"seed": self.seed, "stream": self._stream()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take the seed over, and warn if the data stream is another one."""
        self.seed = state["seed"]
        before, now = state["stream"], self._stream()
        changes = [
            f"{key} {before.get(key)} -> {now.get(key)}"
            for key in {**before, **now}
            if before.get(key) != now.get(key)
        ]
        if changes:
            logger.warning(
                f"The training resumes with another data stream ({', '.join(changes)}): it goes "
                "on, but not image by image as it would have without the interruption."
            )

    def _stream(self) -> dict[str, int]:
        """What, next to the seed, determines the images of an iteration."""
        if self._sampler is None:
            return {}
        return {
            "processes": self._sampler.world_size,
            "images per process": self._sampler.batch_size,
            "images in data set": self._sampler.dataset_size,
        }
