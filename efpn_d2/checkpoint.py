"""Checkpoints: stock detectors as a start for EFPN, and files that a crash cannot destroy."""

import contextlib
import logging
import math
import os
import pickle
from collections.abc import Iterator
from typing import IO, TYPE_CHECKING, Any

from detectron2.checkpoint import DetectionCheckpointer
from torch import nn

if TYPE_CHECKING:
    from detectron2.modeling import GeneralizedRCNN, RetinaNet
    from fvcore.common.checkpoint import _IncompatibleKeys

logger = logging.getLogger(__name__)

_EXTENSION = "backbone.extension."
_RPN_HEAD = "proposal_generator.rpn_head."
_SMALL_PREFIX = "small_"
_DCLOSS = "gradient_balance."
# Batch normalisation does not compute with it, and a frozen network that goes on does not have it.
_UNUSED = ".num_batches_tracked"


class EFPNCheckpointer(DetectionCheckpointer):
    """:class:`DetectionCheckpointer` that also knows what EFPN adds to a detector.

    A loaded file of an FPN detector also gives the heads for P'2 the weights of the stock heads,
    and P'2's lateral and output convolution those of P2, whose semantics P'2 is to have. Files are
    written beside their place and moved there when complete, so a crash while writing never costs
    the previous checkpoint.
    """

    def __init__(
        self, model: nn.Module, save_dir: str = "", *, init_from_stock: bool = True, **kwargs: Any
    ) -> None:
        """
        Args:
            model: the detector, wrapped in DDP or not.
            save_dir: directory of the checkpoints.
            init_from_stock: whether to start the new parts from stock parts, as above.
            kwargs: ``save_to_disk`` and the checkpointables of :class:`DetectionCheckpointer`.
        """
        super().__init__(model, save_dir, **kwargs)
        self.path_manager: _AtomicPathManager = _AtomicPathManager(self.path_manager)
        self._init_from_stock = init_from_stock
        self._resumes = False

    def resume_or_load(self, path: str, *, resume: bool = True) -> dict[str, Any]:
        """As in the base class.

        Raises:
            ValueError: the checkpoint to resume from has other tensors than the model, or its
                optimizer was for other parameters.
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
            "resume with the config that it was trained by, or start without --resume."
        )

    def get_checkpoint_file(self) -> str:
        """As in the base class.

        Raises:
            ValueError: the file that ``last_checkpoint`` names is not there.
        """
        path = super().get_checkpoint_file()
        if path and "://" not in path and not os.path.isfile(path):
            raise ValueError(
                f"'{os.path.join(self.save_dir, 'last_checkpoint')}' names '{path}', which is not "
                "there: put that file back, or write the name of another checkpoint into it."
            )
        return path

    def _load_file(self, filename: str) -> Any:
        """As in the base class.

        Raises:
            ValueError: the file is damaged or no checkpoint.
        """
        try:
            return super()._load_file(filename)
        except (EOFError, KeyError, RuntimeError, pickle.UnpicklingError) as error:
            reason = (str(error) or type(error).__name__).splitlines()[0]
            raise ValueError(
                f"'{filename}' cannot be read as a checkpoint: {reason}. If it was being copied "
                "or downloaded, do that again."
            ) from error

    def _load_model(self, checkpoint: dict[str, Any]) -> "_IncompatibleKeys":
        incompatible = super()._load_model(checkpoint)
        # A detector without DCLoss has no use for its state, and misses nothing.
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
    """The weights below ``prefixes`` that a loaded file did not have in their shape.

    Args:
        incompatible: what loading the file returned.
        prefixes: of the weights' names.
    """
    keys = incompatible.missing_keys
    return [k for k in keys if k.startswith(prefixes) and not k.endswith(_UNUSED)]


def initialize_extension(
    model: "GeneralizedRCNN | RetinaNet", incompatible: "_IncompatibleKeys"
) -> list[str]:
    """Copy P2's lateral and output convolution to P'2's if a checkpoint held only the former.

    Together with FTT, which starts as up-sampling, P'2 then starts as a coarse P2 of the image at
    twice the scale. A slim extension has no convolution of P2's shape and keeps its own start.

    Args:
        model: the detector, not wrapped in DDP, changed in place.
        incompatible: what loading the checkpoint into ``model`` returned.

    Returns:
        Keys of the initialised tensors; they are taken off ``incompatible.missing_keys``.
    """
    state = model.state_dict()
    absent = set(incompatible.missing_keys)
    own = [key for key in state if key.startswith(_EXTENSION)]
    if not own or not absent.issuperset(own):
        return []
    copied = []
    pairs = [("output", "fpn_output2")]
    if model.backbone.texture == "c2_prime":  # what P2's own reads, at twice the resolution
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
    """Copy ``roi_heads.<name>`` to ``roi_heads.small_<name>`` if a checkpoint held only the former.

    The first layer of a small head starts at random if it reads another number of channels.

    What is copied are the model's own weights after loading, so both heads start equal even where a
    shape in the file did not fit (another number of classes).

    Args:
        model: the detector, not wrapped in DDP, changed in place.
        incompatible: what loading the checkpoint into ``model`` returned.

    Returns:
        Names of the initialised modules; none if the checkpoint had heads for P'2, or no ROI heads.
        Their keys are taken off ``incompatible.missing_keys``.
    """
    roi_heads = getattr(model, "roi_heads", None)
    if roi_heads is None:
        return []
    stock = small_to_stock(roi_heads)
    misfits = {key for key, *_ in incompatible.incorrect_shapes}
    absent = set(incompatible.missing_keys) - misfits
    in_file = {
        key.split(".")[1]
        # Not buffers, for those of DCLoss are never missed.
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
            + ("." if complete else ", which the file does not have (all of) itself.")
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
    """Let P'2's own RPN head start at an objectness of 0.01, as RetinaNet's heads start.

    So P'2 proposes next to nothing at first, and takes no place from the proposals of a trained
    RPN. Nothing happens if the checkpoint had that head.

    Args:
        model: the detector, not wrapped in DDP, changed in place.
        incompatible: what loading the checkpoint into ``model`` returned.
    """
    missing = set(incompatible.missing_keys)
    name = "objectness_logits.weight"
    if f"{_RPN_HEAD}small_head.{name}" in missing and f"{_RPN_HEAD}{name}" not in missing:
        head = model.proposal_generator.rpn_head.small_head
        nn.init.constant_(head.objectness_logits.bias, math.log(0.01 / 0.99))


def small_to_stock(roi_heads: nn.Module) -> dict[str, str]:
    """The heads for P'2 that have weights, and their stock counterparts, by name."""
    return {
        name: name.removeprefix(_SMALL_PREFIX)
        for name, child in roi_heads.named_children()
        if name.startswith(_SMALL_PREFIX) and child.state_dict()
    }


class _AtomicPathManager:
    """A path manager whose local files appear when they are complete, or not at all."""

    def __init__(self, path_manager: Any) -> None:
        self._path_manager = path_manager

    def __getattr__(self, name: str) -> Any:
        return getattr(self._path_manager, name)

    def open(
        self, path: str, mode: str = "r", **kwargs: Any
    ) -> contextlib.AbstractContextManager[IO[Any]]:
        """As the wrapped path manager's, but a local file to write appears when it is closed."""
        if "w" in mode and "://" not in path:
            return _atomic_write(path, mode)
        return self._path_manager.open(path, mode, **kwargs)


@contextlib.contextmanager
def _atomic_write(path: str, mode: str) -> Iterator[IO[Any]]:
    partial = f"{path}.partial"
    try:
        with open(partial, mode) as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.remove(partial)
