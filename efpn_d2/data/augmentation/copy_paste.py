"""Small objects copied to other places of their image, so that the network sees more of them."""

import copy
import math
from typing import Any, NamedTuple

import numpy as np
from detectron2.config import CfgNode
from detectron2.data import DatasetMapper
from detectron2.data import transforms as T
from detectron2.structures import BoxMode, polygons_to_bitmask

# Places that are tried for a copy before it is given up.
_TRIES = 50


class Paste(NamedTuple):
    """A rectangle of an image's pixels that is copied to another place of it.

    Attributes:
        source: x0, y0, x1, y1 in whole pixels, half-open.
        offset: of the copy, in whole pixels to the right and down.
        mask: (y1 - y0, x1 - x0) bool, the pixels of the rectangle that are copied; None: all.
    """

    source: tuple[int, int, int, int]
    offset: tuple[int, int]
    mask: np.ndarray | None


class PasteTransform(T.Transform):
    """Copies pixels within an image. Coordinates stay, for nothing that was there moves."""

    def __init__(self, pastes: list[Paste]) -> None:
        super().__init__()
        self.pastes = pastes

    def apply_image(self, img: np.ndarray) -> np.ndarray:
        """``img``, (H, W) or (H, W, C), with the copies; all are taken from the image before."""
        result = img.copy()
        for (x0, y0, x1, y1), (dx, dy), mask in self.pastes:
            target = result[y0 + dy : y1 + dy, x0 + dx : x1 + dx]
            where = ... if mask is None else mask
            target[where] = img[y0:y1, x0:x1][where]
        return result

    def apply_coords(self, coords: np.ndarray) -> np.ndarray:
        """Nothing moves."""
        return coords


class SmallObjectCopyPaste:
    """Chooses small objects of an image and places for copies of them.

    A copy is moved by whole pixels and not changed otherwise, so its box is exact. Of an object
    with a mask, the pixels of the mask alone are copied. All random numbers are numpy's.
    """

    def __init__(
        self, *, probability: float, max_copies: int, max_size: float, max_cover: float
    ) -> None:
        """
        Args:
            probability: of an image to get copies at all.
            max_copies: an image gets 1 to this many copies, fewer if there is no place.
            max_size: objects with sqrt(w * h) below it, in pixels of the file, are copied.
            max_cover: the share of any other object's box that a copy may cover.

        Raises:
            ValueError: a number is out of its range.
        """
        for name, value, valid in (
            ("PROBABILITY", probability, 0 <= probability <= 1),
            ("MAX_COPIES", max_copies, max_copies >= 1),
            ("MAX_SIZE", max_size, max_size > 0),
            ("MAX_COVER", max_cover, 0 <= max_cover < 1),
        ):
            if not valid:
                raise ValueError(
                    f"DATA.COPY_PASTE_{name} is {value}: use a probability from 0 to 1, at least "
                    "one copy, a size above 0 and a cover from 0 to below 1."
                )
        self._probability = probability
        self._max_copies = max_copies
        self._max_size = max_size
        self._max_cover = max_cover

    @classmethod
    def from_config(cls, cfg: CfgNode) -> SmallObjectCopyPaste | None:
        """That of ``cfg.DATA``; None where it is switched off."""
        node = cfg.DATA
        if node.COPY_PASTE_PROBABILITY == 0:
            return None
        return cls(
            probability=node.COPY_PASTE_PROBABILITY,
            max_copies=node.COPY_PASTE_MAX_COPIES,
            max_size=node.COPY_PASTE_MAX_SIZE,
            max_cover=node.COPY_PASTE_MAX_COVER,
        )

    def __call__(self, record: dict[str, Any]) -> tuple[dict[str, Any], PasteTransform | None]:
        """Draw copies for an image.

        Args:
            record: of Detectron2's format, with ``width`` and ``height``; not changed.

        Returns:
            The record with the copies' annotations, and what pastes their pixels into the image as
            it is in the file; or the record itself and None.
        """
        annotations = record.get("annotations", [])
        boxes = [_xyxy(annotation) for annotation in annotations]
        small = [
            i
            for i, annotation in enumerate(annotations)
            if not annotation.get("iscrowd", 0)
            and self._is_small(boxes[i])
            # Else a copy would show a part of another object.
            and self._is_alone(boxes[i], boxes[:i] + boxes[i + 1 :])
        ]
        if not small or np.random.rand() >= self._probability:
            return record, None
        size = (record["width"], record["height"])
        pastes, copies = [], []
        for _ in range(np.random.randint(self._max_copies) + 1):
            index = small[np.random.randint(len(small))]
            source = _whole_pixels(boxes[index], size)
            offset = self._find_place(source, size, boxes)
            if offset is None:
                continue
            copies.append(_move(annotations[index], offset, size))
            boxes.append(_xyxy(copies[-1]))
            mask = _mask(annotations[index].get("segmentation"), source)
            pastes.append(Paste(source, offset, mask))
        if not pastes:
            return record, None
        return {**record, "annotations": [*annotations, *copies]}, PasteTransform(pastes)

    def _is_small(self, box: np.ndarray) -> bool:
        width, height = box[2] - box[0], box[3] - box[1]
        return min(width, height) > 0 and math.sqrt(width * height) < self._max_size

    def _is_alone(self, box: np.ndarray, others: list[np.ndarray]) -> bool:
        return all(_covered_shares(box[None], other)[0] <= self._max_cover for other in others)

    def _find_place(
        self, source: tuple[int, int, int, int], size: tuple[int, int], boxes: list[np.ndarray]
    ) -> tuple[int, int] | None:
        x0, y0, x1, y1 = source
        others = np.stack(boxes)
        for _ in range(_TRIES):
            x = np.random.randint(size[0] - (x1 - x0) + 1)
            y = np.random.randint(size[1] - (y1 - y0) + 1)
            place = np.array([x, y, x + x1 - x0, y + y1 - y0])
            if (_covered_shares(others, place) <= self._max_cover).all():
                return int(x - x0), int(y - y0)
        return None


class CopyPasteMapper:
    """A mapper that lets small objects be copied before everything else that it does."""

    def __init__(self, mapper: DatasetMapper, copy_paste: SmallObjectCopyPaste) -> None:
        """
        Args:
            mapper: Detectron2's, or one that has its ``augmentations``.
            copy_paste: what chooses the copies.
        """
        self.mapper = mapper
        self._copy_paste = copy_paste

    def __call__(self, record: dict[str, Any]) -> dict[str, Any]:
        """The model input of a record with its copies."""
        record, paste = self._copy_paste(record)
        if paste is None:
            return self.mapper(record)
        mapper = copy.copy(self.mapper)
        mapper.augmentations = T.AugmentationList([paste, *self.mapper.augmentations.augs])
        return mapper(record)


def _xyxy(annotation: dict[str, Any]) -> np.ndarray:
    box = BoxMode.convert(annotation["bbox"], annotation["bbox_mode"], BoxMode.XYXY_ABS)
    return np.asarray(box, dtype=np.float64)


def _whole_pixels(box: np.ndarray, size: tuple[int, int]) -> tuple[int, int, int, int]:
    """The smallest rectangle of whole pixels around a box, within the image."""
    x0, y0 = (max(math.floor(value), 0) for value in box[:2])
    x1, y1 = (min(math.ceil(value), limit) for value, limit in zip(box[2:], size, strict=True))
    return x0, y0, x1, y1


def _covered_shares(boxes: np.ndarray, place: np.ndarray) -> np.ndarray:
    """The share of each of (R, 4) boxes that lies in ``place``; (R,)."""
    low, high = np.maximum(boxes[:, :2], place[:2]), np.minimum(boxes[:, 2:], place[2:])
    covered = (high - low).clip(min=0).prod(axis=1)
    return covered / (boxes[:, 2:] - boxes[:, :2]).prod(axis=1).clip(min=1e-9)


def _mask(segmentation: Any, source: tuple[int, int, int, int]) -> np.ndarray | None:
    if not segmentation:
        return None
    x0, y0, x1, y1 = source
    if isinstance(segmentation, list):
        polygons = [
            np.asarray(p, dtype=np.float64) - [x0, y0] * (len(p) // 2) for p in segmentation
        ]
        return polygons_to_bitmask(polygons, y1 - y0, x1 - x0)
    from pycocotools import mask as run_lengths

    return run_lengths.decode(segmentation)[y0:y1, x0:x1].astype(bool)


def _move(
    annotation: dict[str, Any], offset: tuple[int, int], size: tuple[int, int]
) -> dict[str, Any]:
    """A copy of an annotation at another place."""
    moved = copy.deepcopy(annotation)
    box = _xyxy(annotation) + [*offset, *offset]
    moved["bbox"] = BoxMode.convert(box.tolist(), BoxMode.XYXY_ABS, annotation["bbox_mode"])
    segmentation = annotation.get("segmentation")
    if isinstance(segmentation, list):
        moved["segmentation"] = [
            (np.asarray(p, dtype=np.float64) + [*offset] * (len(p) // 2)).tolist()
            for p in segmentation
        ]
    elif segmentation:
        moved["segmentation"] = _move_run_lengths(segmentation, offset, size)
    if "keypoints" in annotation:
        points = np.asarray(annotation["keypoints"], dtype=np.float64).reshape(-1, 3)
        moved["keypoints"] = (points + [*offset, 0]).reshape(-1).tolist()
    return moved


def _move_run_lengths(
    segmentation: dict[str, Any], offset: tuple[int, int], size: tuple[int, int]
) -> dict[str, Any]:
    from pycocotools import mask as run_lengths

    (dx, dy), (width, height) = offset, size
    before, after = run_lengths.decode(segmentation), np.zeros((height, width), np.uint8, order="F")
    ys, xs = before.nonzero()
    ys, xs = ys + dy, xs + dx
    inside = (ys >= 0) & (ys < height) & (xs >= 0) & (xs < width)
    after[ys[inside], xs[inside]] = 1
    return run_lengths.encode(after)
