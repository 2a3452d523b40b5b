"""What one synthetic set is made of, and where its files lie."""

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from efpn_d2.data.datasets.paths import dataset_root

# File pixels per student pixel, along one side.
SCALES = {"native1x": 1, "native2x": 2}
IMAGE_FORMATS = ("jpg", "png")


@dataclass(frozen=True, kw_only=True)
class SyntheticConfig:
    """One split of one variant of the synthetic set.

    Scenes are composed once, at twice the student's scale. ``native2x`` stores that picture, so a
    2x view of the student's image holds real extra detail; ``native1x`` stores its 2x2 average, so
    a 2x view is an upsampling. All lengths here are in *student pixels*: with the same seed the
    two variants show the same scenes with the same sizes, and the file of ``native2x`` has boxes of
    exactly twice the side.

    So with ``native2x`` the student's input is the file at half its side (``INPUT.MIN_SIZE_*`` =
    ``student_size``) and the teacher's the file as it is, while annotations, and with them the size
    bins of an evaluation, are in file pixels: 8 to 128 by default instead of 4 to 64.

    The defaults are moderately hard. To make the set easier raise ``min_size``, and lower
    ``clutter``, ``occluded_fraction``, ``max_blur``, ``max_noise`` or ``brightness_jitter``.

    Args:
        variant: "native1x" or "native2x".
        split: name of the split; it is part of the seed, so no two splits share a scene.
        num_images: length of the split. Image i does not depend on it.
        student_size: side of the (square) image at student scale.
        seed: image i depends on (seed, split, i) and the options below, on nothing else.
        image_format: "jpg" or "png".
        jpeg_quality: 1 to 100, for "jpg".
        min_size, max_size: the sign's sqrt(w * h) is log-uniform between them.
        max_objects: signs of an ordinary image: uniform from 1 to this.
        empty_fraction: share of images without a sign.
        crowded_fraction: share of images with as many signs as ``crowded_objects`` says.
        crowded_objects: smallest and largest number of signs to place in a crowded image. Fewer
            are shown where they do not fit side by side.
        occluded_fraction: share of signs behind a pole, a slab or leaves.
        min_visible: signs of which a smaller share is visible are left out of the scene.
        clutter: multiplies the expected number of background items and sign-like distractors.
        max_blur: the Gaussian blur's sigma is uniform from 0 to this.
        max_noise: the sensor noise's sigma is uniform from 0 to this, in grey levels of 255.
        brightness_jitter: the image's gain is uniform from 1 - this to 1 + this / 2.
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
        """All that decides what image i looks like (JSON types only)."""
        options = dataclasses.asdict(self)
        del options["num_images"]
        options["crowded_objects"] = list(self.crowded_objects)
        return options


def synthetic_paths(variant: str, split: str, root: str | None = None) -> tuple[Path, Path]:
    """Where a split's COCO JSON and image folder are, whether or not they exist.

    Args:
        variant: "native1x" or "native2x".
        split: e.g. "train".
        root: folder of all data sets; None: see :func:`..paths.dataset_root`.
    """
    folder = dataset_root(root) / "synthetic_signs" / variant
    return folder / "annotations" / f"{split}.json", folder / split
