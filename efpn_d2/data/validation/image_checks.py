"""Check the headers of image files that would fail a training or an evaluation."""

import logging
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from detectron2.config import CfgNode

from efpn_d2.data.coco.json_summary import ImageEntry
from efpn_d2.data.image_reading import vanishes
from efpn_d2.data.validation import KINDS, counted
from efpn_d2.data.validation.image_files import ImageFacts, inspect_images

logger = logging.getLogger(__name__)

_PREPARE = (
    "correct that, or let tools/prepare_dataset.py do it, which lists each image, rotates boxes "
    "with their image and drops what cannot be used"
)
# With at least this many images, the check is slow enough to be logged.
_MANY = 5000


def check_images(
    name: str, images: Sequence[ImageEntry], image_root: str, sizes: tuple[int, int]
) -> None:
    """Check that Detectron2 can read the images of a dataset, with the sizes given in its JSON.

    Args:
        name: name of the dataset.
        images: the images that are read.
        image_root: folder to which their file names are relative.
        sizes: target of the shorter side and maximum of the longer one; see
            :func:`efpn_d2.data.image_reading.vanishes`.

    Raises:
        ValueError: if some images cannot be used; the message counts them by the kind of problem
            and gives an example of each.
    """
    many = len(images) >= _MANY
    if many:
        logger.info("Checking the headers of the %d images of '%s'", len(images), name)
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
            f"{bad} of the {counted(len(images), 'image')} of dataset '{name}' in {image_root} "
            f"cannot be used ({'; '.join(parts)}): {_PREPARE}."
        )


def image_sizes(cfg: CfgNode, split: str) -> tuple[int, int]:
    """Return the sizes to which images of a split are resized, for :func:`check_images`.

    Args:
        cfg: a config.
        split: "TRAIN" or "TEST".

    Returns:
        The smallest shorter side, 0 if unknown, and the largest longer side.
    """
    if split == "TEST":
        return cfg.INPUT.MIN_SIZE_TEST, cfg.INPUT.MAX_SIZE_TEST
    # A crop has another shape than its image.
    sizes = cfg.INPUT.MIN_SIZE_TRAIN
    shortest = sizes if isinstance(sizes, int) else min(sizes)
    return 0 if cfg.INPUT.CROP.ENABLED else shortest, cfg.INPUT.MAX_SIZE_TRAIN


def _problem(image: ImageEntry, facts: ImageFacts, sizes: tuple[int, int]) -> tuple[str, str]:
    """Return the kind of an image's problem and a message; both empty if there is none."""
    if facts.problem:
        hint = ""
        if facts.problem == "missing_image" and "\\" in image.file_name:
            hint = ", because its name has a backslash instead of /"
        return facts.problem, facts.message + hint
    said, shown = (image.width, image.height), (facts.width, facts.height)
    if said != shown:
        text = f"the annotations give the size {image.width} x {image.height}, but the image"
        text += f" is shown with {facts.width} x {facts.height}"
        if said == facts.stored_size:
            return "rotated_image", f"{text}, due to its EXIF orientation {facts.orientation}"
        return "image_size_mismatch", text
    if vanishes(facts.width, facts.height, *sizes):
        text = (
            f"whose shorter side has no pixel left when its {facts.width} x {facts.height} pixels"
        )
        return (
            "images too narrow for the input",
            f"{text} are resized to the input; cut it into tiles",
        )
    return "", ""
