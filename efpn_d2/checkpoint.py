"""Checkpointing: initialize EFPN from stock detectors, and write files atomically."""

import contextlib
import logging
import math
import os
import pickle
from typing import IO, TYPE_CHECKING, Any

from detectron2.checkpoint import DetectionCheckpointer
from torch import nn

from efpn_d2.utils.checkpoint_errors import explain_unreadable
from efpn_d2.utils.files import open_atomically

if TYPE_CHECKING:
    from detectron2.modeling import GeneralizedRCNN, RetinaNet
    from fvcore.common.checkpoint import _IncompatibleKeys

logger = logging.getLogger(__name__)

_EXTENSION = "backbone.extension."
_RPN_HEAD = "proposal_generator.rpn_head."
_SMALL_PREFIX = "small_"
_DCLOSS = "gradient_balance."
# Batch normalization does not use it in computations, and frozen layers do not have it.
_UNUSED = ".num_batches_tracked"


class EFPNCheckpointer(DetectionCheckpointer):
    """:class:`DetectionCheckpointer` that initializes the parts which EFPN adds to a detector.

    When an FPN checkpoint is loaded, the heads on P'2 are initialized from the stock heads, and the
    lateral and output convolutions of P'2 from those of P2, since P'2 should have the semantics of
    P2. Files are written atomically, so a crash while saving does not destroy the previous
    checkpoint.
    """

    def __init__(
        self, model: nn.Module, save_dir: str = "", *, init_from_stock: bool = True, **kwargs: Any
    ) -> None:
        """
        Args:
            model: the detector, wrapped in DDP or not.
            save_dir: directory of the checkpoints.
            init_from_stock: whether to initialize the new parts from stock parts.
            kwargs: ``save_to_disk`` and the checkpointables of :class:`DetectionCheckpointer`.
        """
        super().__init__(model, save_dir, **kwargs)
        self.path_manager: _AtomicPathManager = _AtomicPathManager(self.path_manager)
        self._init_from_stock = init_from_stock
        self._resumes = False

    def resume_or_load(self, path: str, *, resume: bool = True) -> dict[str, Any]:
        """Load the last checkpoint if resuming, otherwise ``path``; see the base class.

        Raises:
            ValueError: if the checkpoint does not match the model's tensors, or the optimizer's
                parameters.
        """
        self._resumes = resume and self.has_checkpoint()
        try:
            return super().resume_or_load(path, resume=resume)
        except ValueError as error:
            if not self._resumes or "parameter group" not in str(error):
                raise
            raise ValueError(self._misfit("other parameters are frozen")) from error
        finally:
            self._resumes = False

    def _misfit(self, what: str) -> str:
        return (
            f"'{self.get_checkpoint_file()}' is of another detector than the config's ({what}): "
            "resume with the config it was trained with, or start without --resume."
        )

    def get_checkpoint_file(self) -> str:
        """Return the path of the last checkpoint, or an empty string if there is none.

        Raises:
            ValueError: if the file named in ``last_checkpoint`` does not exist.
        """
        path = super().get_checkpoint_file()
        if path and "://" not in path and not os.path.isfile(path):
            raise ValueError(
                f"'{os.path.join(self.save_dir, 'last_checkpoint')}' names '{path}', which is not "
                "there: restore that file, or write the name of another checkpoint into it."
            )
        return path

    def _load_file(self, filename: str) -> Any:
        """Load a checkpoint file.

        Raises:
            ValueError: if the file is damaged or is not a checkpoint.
        """
        try:
            return super()._load_file(filename)
        except (EOFError, KeyError, RuntimeError, pickle.UnpicklingError) as error:
            raise ValueError(explain_unreadable(filename, error)) from error

    def _load_model(self, checkpoint: dict[str, Any]) -> "_IncompatibleKeys":
        incompatible = super()._load_model(checkpoint)
        # A detector without DCLoss ignores its state and does not miss it.
        incompatible.unexpected_keys[:] = [
            key for key in incompatible.unexpected_keys if _DCLOSS not in key
        ]
        if self._resumes:
            shapes = [key for key, *_ in incompatible.incorrect_shapes]
            found = [*shapes, *incompatible.missing_keys, *incompatible.unexpected_keys]
            if found:
                what = f"{len({*found})} tensors differ, such as {found[0]}"
                raise ValueError(self._misfit(what))
        if self._init_from_stock:
            self._initialize_new_parts(incompatible)
        return incompatible

    def _initialize_new_parts(self, incompatible: "_IncompatibleKeys") -> None:
        initialize_extension(self.model, incompatible)
        initialize_small_heads(self.model, incompatible)
        initialize_small_rpn_head(self.model, incompatible)


def missing_below(incompatible: "_IncompatibleKeys", prefixes: tuple[str, ...]) -> list[str]:
    """Return the weights below ``prefixes`` that a loaded file lacks or has in a different shape.

    Args:
        incompatible: result of loading the file.
        prefixes: prefixes of the names of weights.
    """
    keys = incompatible.missing_keys
    return [k for k in keys if k.startswith(prefixes) and not k.endswith(_UNUSED)]


def initialize_extension(
    model: "GeneralizedRCNN | RetinaNet", incompatible: "_IncompatibleKeys"
) -> list[str]:
    """Initialize P'2's lateral and output convolutions from P2 if the checkpoint lacks them.

    FTT starts as upsampling, so P'2 starts as a coarse P2 of the image at twice the scale. A slim
    extension has no convolution of P2's shape and keeps its own initialization.

    Args:
        model: the detector, not wrapped in DDP; modified in place.
        incompatible: the result of loading the checkpoint into ``model``.

    Returns:
        The keys of the initialized tensors; they are removed from ``incompatible.missing_keys``.
    """
    state = model.state_dict()
    absent = set(incompatible.missing_keys)
    own = [key for key in state if key.startswith(_EXTENSION)]
    if not own or not absent.issuperset(own):
        return []
    copied = []
    pairs = [("output", "fpn_output2")]
    if (
        model.backbone.texture == "c2_prime"
    ):  # the features that P2's convolution reads, at twice the resolution
        pairs.insert(0, ("lateral", "fpn_lateral2"))
    for new, stock in pairs:
        for key in state:
            source = key.replace(f"{_EXTENSION}{new}.", f"backbone.{stock}.")
            fits = source in state and state[source].shape == state[key].shape
            if source != key and fits and source not in absent:
                state[key].copy_(state[source])
                copied.append(key)
    if copied:
        logger.info("backbone.extension starts with P2's convolutions: %s.", ", ".join(copied))
    incompatible.missing_keys[:] = [k for k in incompatible.missing_keys if k not in copied]
    return copied


def initialize_small_heads(model: nn.Module, incompatible: "_IncompatibleKeys") -> list[str]:
    """Copy ``roi_heads.<name>`` to ``roi_heads.small_<name>`` if the checkpoint lacks the latter.

    The weights are copied from the loaded model, so both heads are equal even if a tensor in the
    file did not match, e.g. for another number of classes. The first layer of a small head keeps
    its random initialization if its number of input channels differs.

    Args:
        model: the detector, not wrapped in DDP; modified in place.
        incompatible: the result of loading the checkpoint into ``model``.

    Returns:
        The names of the initialized modules; empty if the checkpoint has heads for P'2 or the model
        has no ROI heads. Their keys are removed from ``incompatible.missing_keys``.
    """
    roi_heads = getattr(model, "roi_heads", None)
    if roi_heads is None:
        return []
    stock = small_to_stock(roi_heads)
    misfits = {key for key, *_ in incompatible.incorrect_shapes}
    absent = set(incompatible.missing_keys) - misfits
    in_file = {
        key.split(".")[1]
        # Buffers are skipped, because those of DCLoss are never reported as missing.
        for key, _ in model.named_parameters()
        if key.startswith("roi_heads.") and key not in absent
    }
    if in_file.intersection(stock) or not in_file.intersection(stock.values()):
        return []
    incompatible_keys = absent | misfits
    for small_name, stock_name in stock.items():
        small = getattr(roi_heads, small_name)
        weights = getattr(roi_heads, stock_name).state_dict()
        small.load_state_dict(
            {
                key: weights[key] if weights[key].shape == own.shape else own
                for key, own in small.state_dict().items()
            }
        )
        complete = not any(key.startswith(f"roi_heads.{stock_name}.") for key in incompatible_keys)
        logger.info(
            f"roi_heads.{small_name} starts from the weights of roi_heads.{stock_name}"
            + ("." if complete else ", because the file lacks some or all of its own.")
        )
    incompatible.missing_keys[:] = [
        key
        for key in incompatible.missing_keys
        if not key.startswith(tuple(f"roi_heads.{name}." for name in stock))
    ]
    return list(stock)


def initialize_small_rpn_head(
    model: "GeneralizedRCNN | RetinaNet", incompatible: "_IncompatibleKeys"
) -> None:
    """Initialize the RPN head of P'2 to an objectness of 0.01, as in RetinaNet's heads.

    P'2 then proposes almost nothing at first and does not displace the proposals of a trained RPN.
    Nothing is changed if the checkpoint has this head.

    Args:
        model: the detector, not wrapped in DDP; modified in place.
        incompatible: the result of loading the checkpoint into ``model``.
    """
    missing = set(incompatible.missing_keys)
    name = "objectness_logits.weight"
    if f"{_RPN_HEAD}small_head.{name}" in missing and f"{_RPN_HEAD}{name}" not in missing:
        head = model.proposal_generator.rpn_head.small_head
        nn.init.constant_(head.objectness_logits.bias, math.log(0.01 / 0.99))


def small_to_stock(roi_heads: nn.Module) -> dict[str, str]:
    """Map the names of the heads for P'2 that have weights to their stock counterparts."""
    return {
        name: name.removeprefix(_SMALL_PREFIX)
        for name, child in roi_heads.named_children()
        if name.startswith(_SMALL_PREFIX) and child.state_dict()
    }


class _AtomicPathManager:
    """Path manager that writes local files atomically."""

    def __init__(self, path_manager: Any) -> None:
        self._path_manager = path_manager

    def __getattr__(self, name: str) -> Any:
        return getattr(self._path_manager, name)

    def open(
        self, path: str, mode: str = "r", **kwargs: Any
    ) -> contextlib.AbstractContextManager[IO[Any]]:
        """Open a file; a local file that is written appears only when it is closed."""
        if "w" in mode and "://" not in path:
            return open_atomically(path, mode, sync=True)
        return self._path_manager.open(path, mode, **kwargs)
