"""Configuration and paths of a synthetic dataset."""

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from efpn_d2.data.paths import dataset_root

# File pixels per student pixel, along one side.
SCALES = {"native1x": 1, "native2x": 2}
IMAGE_FORMATS = ("jpg", "png")


@dataclass(frozen=True, kw_only=True)
class SyntheticConfig:
    """One split of one variant of the synthetic dataset.

    Scenes are composed at twice the student's scale. ``native2x`` stores this picture, so a 2x view
    of the student's image has real extra detail; ``native1x`` stores its 2x2 average, so a 2x view
    is upsampled. All lengths here are in *student pixels*: with the same seed the two variants show
    the same scenes with the same sizes, and boxes in the files of ``native2x`` have exactly twice
    the side.

    With ``native2x`` the student's input is therefore the file at half its side
    (``INPUT.MIN_SIZE_*`` = ``student_size``) and the teacher's is the file itself, while
    annotations, and thus the size bins of an evaluation, are in file pixels: 8 to 128 by default
    instead of 4 to 64.

    The defaults are moderately hard. To make the dataset easier, increase ``min_size`` and decrease
    ``clutter``, ``occluded_fraction``, ``max_blur``, ``max_noise`` or ``brightness_jitter``.

    Args:
        variant: "native1x" or "native2x".
        split: name of the split; it is part of the seed, so no two splits share a scene.
        num_images: number of images. Image i does not depend on it.
        student_size: side of the (square) image at the student's scale.
        seed: image i depends only on (seed, split, i) and the options below.
        image_format: "jpg" or "png".
        jpeg_quality: 1 to 100, for "jpg".
        min_size: minimum sqrt(w * h) of a sign; sizes are log-uniform.
        max_size: maximum sqrt(w * h) of a sign.
        max_objects: an ordinary image has 1 to this many signs, uniformly.
        empty_fraction: fraction of images without signs.
        crowded_fraction: fraction of images with ``crowded_objects`` signs.
        crowded_objects: minimum and maximum number of signs in a crowded image. Fewer are placed if
            they do not fit side by side.
        occluded_fraction: fraction of signs behind a pole, a slab or leaves.
        min_visible: signs with a smaller visible fraction are removed from the scene.
        clutter: multiplies the expected number of background items and distractors.
        max_blur: the sigma of the Gaussian blur is uniform from 0 to this.
        max_noise: the sigma of the sensor noise is uniform from 0 to this, in gray levels of 255.
        brightness_jitter: the gain of an image is uniform from 1 - this to 1 + this / 2.
    """

    variant: str = "native2x"
    split: str = "train"
    num_images: int = 1000
    student_size: int = 320
    seed: int = 0
    image_format: str = "jpg"
    jpeg_quality: int = 92
    min_size: float = 4.0
    max_size: float = 64.0
    max_objects: int = 10
    empty_fraction: float = 0.07
    crowded_fraction: float = 0.10
    crowded_objects: tuple[int, int] = (20, 40)
    occluded_fraction: float = 0.12
    min_visible: float = 0.4
    clutter: float = 1.0
    max_blur: float = 0.4
    max_noise: float = 6.0
    brightness_jitter: float = 0.35

    def __post_init__(self) -> None:
        low, high = self.crowded_objects
        shares = (self.empty_fraction, self.crowded_fraction)
        amounts = (self.num_images, self.seed, self.clutter, self.max_blur, self.max_noise)
        for valid, rule, names in (
            (self.variant in SCALES, f"a variant of {sorted(SCALES)}", "variant"),
            (self.split and "/" not in self.split, "a plain name as split", "split"),
            (
                self.image_format in IMAGE_FORMATS,
                f"an image_format of {IMAGE_FORMATS}",
                "image_format",
            ),
            (1 <= self.jpeg_quality <= 100, "jpeg_quality in 1..100", "jpeg_quality"),
            (
                min(amounts) >= 0,
                "values of at least 0",
                "num_images seed clutter max_blur max_noise",
            ),
            (0 < self.min_size <= self.max_size, "0 < min_size <= max_size", "min_size max_size"),
            (
                2 * self.max_size <= self.student_size,
                "student_size >= 2 * max_size",
                "student_size max_size",
            ),
            (self.max_objects >= 1, "max_objects >= 1", "max_objects"),
            (1 <= low <= high, "two ascending counts from 1", "crowded_objects"),
            (
                min(shares) >= 0 and sum(shares) <= 1,
                "shares that add up to at most 1",
                "empty_fraction crowded_fraction",
            ),
            (0 <= self.occluded_fraction <= 1, "a share in 0..1", "occluded_fraction"),
            (0 <= self.min_visible <= 1, "a share in 0..1", "min_visible"),
            (0 <= self.brightness_jitter < 1, "a share in [0, 1)", "brightness_jitter"),
        ):
            if not valid:
                given = ", ".join(f"{name}={getattr(self, name)!r}" for name in names.split())
                raise ValueError(f"SyntheticConfig needs {rule}, got {given}.")

    @property
    def scale(self) -> int:
        """File pixels per student pixel."""
        return SCALES[self.variant]

    @property
    def file_size(self) -> int:
        """Side of the image files in pixels."""
        return self.scale * self.student_size

    @property
    def scene_size(self) -> int:
        """Side of the composed scene in pixels, for both variants."""
        return max(SCALES.values()) * self.student_size

    def image_options(self) -> dict[str, Any]:
        """Options that determine the content of image i (JSON types only)."""
        options = dataclasses.asdict(self)
        del options["num_images"]
        options["crowded_objects"] = list(self.crowded_objects)
        return options


def synthetic_paths(variant: str, split: str, root: str | None = None) -> tuple[Path, Path]:
    """Return the paths of a split's COCO JSON and image folder, which need not exist.

    Args:
        variant: "native1x" or "native2x".
        split: name of the split, e.g. "train".
        root: folder of all datasets; None: see :func:`..paths.dataset_root`.
    """
    folder = dataset_root(root) / "synthetic_signs" / variant
    return folder / "annotations" / f"{split}.json", folder / split
