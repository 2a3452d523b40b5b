"""Image files that would end a training or an evaluation, found before it by their headers."""

import logging
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from detectron2.config import CfgNode

from efpn_d2.data.datasets.json_summary import ImageEntry
from efpn_d2.data.datasets.validation import KINDS, counted
from efpn_d2.data.datasets.validation.image_files import ImageFacts, inspect_images
from efpn_d2.data.image_reading import vanishes

logger = logging.getLogger(__name__)

_PREPARE = (
    "correct that, or let tools/prepare_dataset.py do it, which names each, rotates boxes with "
    "their image and leaves out what cannot be used"
)
# From so many images on, it takes long enough to say what is done.
_MANY = 5000


def check_images(
    name: str, images: Sequence[ImageEntry], image_root: str, sizes: tuple[int, int]
) -> None:
    """Check that Detectron2 can read a data set's images, at the sizes that its JSON says.

    Args:
        name: of the data set.
        images: those that are read.
        image_root: folder that their file names start from.
        sizes: what the shorter side is brought to, and what the longer has at most; see
            :func:`efpn_d2.data.image_reading.vanishes`.

    Raises:
        ValueError: some cannot be used; the message counts them by what is wrong, and names one.
    """
    many = len(images) >= _MANY
    if many:
        logger.info("Looking at the headers of the %d images of '%s'", len(images), name)
    paths = [Path(image_root, image.file_name) for image in images]
    found: dict[str, list[str]] = defaultdict(list)
    all_facts = inspect_images(paths, quick=True, progress=name if many else "")
    for image, facts in zip(images, all_facts, strict=True):
        kind, message = _problem(image, facts, sizes)
        if kind:
            found[kind].append(f"'{image.file_name}', {message}")
    if found:
        bad = sum(map(len, found.values()))
        parts = [f"{KINDS.get(k, k)}: {len(of)}, such as {of[0]}" for k, of in found.items()]
        raise ValueError(
            f"Of the {counted(len(images), 'image')} of data set '{name}' in {image_root}, {bad} "
            f"cannot be used ({'; '.join(parts)}): {_PREPARE}."
        )


def image_sizes(cfg: CfgNode, split: str) -> tuple[int, int]:
    """The sizes that images of a split are brought to, for :func:`check_images`.

    Args:
        cfg: a config.
        split: "TRAIN" or "TEST".

    Returns:
        The smallest shorter side, 0 if that cannot be said, and the longest longer one.
    """
    if split == "TEST":
        return cfg.INPUT.MIN_SIZE_TEST, cfg.INPUT.MAX_SIZE_TEST
    # A crop has another shape than its image.
    sizes = cfg.INPUT.MIN_SIZE_TRAIN
    shortest = sizes if isinstance(sizes, int) else min(sizes)
    return 0 if cfg.INPUT.CROP.ENABLED else shortest, cfg.INPUT.MAX_SIZE_TRAIN


def _problem(image: ImageEntry, facts: ImageFacts, sizes: tuple[int, int]) -> tuple[str, str]:
    """The kind of what is wrong with an image and a message; both empty if nothing is."""
    if facts.problem:
        hint = ""
        if facts.problem == "missing_image" and "\\" in image.file_name:
            hint = ", for its name has a backslash where it needs /"
        return facts.problem, facts.message + hint
    said, shown = (image.width, image.height), (facts.width, facts.height)
    if said != shown:
        text = f"the size is said to be {image.width} x {image.height}, but the image"
        text += f" is shown with {facts.width} x {facts.height}"
        if said == facts.stored_size:
            return "rotated_image", f"{text}, by its EXIF orientation {facts.orientation}"
        return "image_size_mismatch", text
    if vanishes(facts.width, facts.height, *sizes):
        text = f"of its {facts.width} x {facts.height} pixels, scaling to the input leaves none"
        return "images too narrow for the input", f"{text} of the shorter side; cut it into tiles"
    return "", ""
