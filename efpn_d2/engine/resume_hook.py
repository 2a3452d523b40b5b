"""Hook that makes a resumed training equal to an uninterrupted one."""

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
    """Tie all randomness of a training to its base seed and the iteration.

    Before training it moves the data loader to the first iteration; before each step it seeds the
    random generators of this process from (base seed, rank, iteration). The base seed is kept in
    the checkpoint and takes precedence over ``SEED`` when a training resumes. Together with the
    iteration, which Detectron2 keeps, it is the complete random state of every rank. Therefore
    neither an evaluation nor an interruption changes the iterations that follow.

    Attributes:
        seed: the base seed.
    """

    def __init__(self, data_loader: DataLoader[Any]) -> None:
        """
        Args:
            data_loader: loader of the trainer; its sampler has the base seed. A loader without a
                :class:`ResumableBatchSampler` is left alone and restarts its order.
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
        """Return the seed and the properties of the data stream."""
        return {"seed": self.seed, "stream": self._stream()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over the seed, and warn if the data stream differs."""
        self.seed = state["seed"]
        before, now = state["stream"], self._stream()
        changes = [
            f"{key} {before.get(key)} -> {now.get(key)}"
            for key in {**before, **now}
            if before.get(key) != now.get(key)
        ]
        if changes:
            logger.warning(
                f"The training resumes with a different data stream ({', '.join(changes)}): its "
                "images will differ from those of an uninterrupted training."
            )

    def _stream(self) -> dict[str, int]:
        """Return what, besides the seed, determines the images of an iteration."""
        if self._sampler is None:
            return {}
        return {
            "processes": self._sampler.world_size,
            "images per process": self._sampler.batch_size,
            "images in data set": self._sampler.dataset_size,
        }
