"""Writing planned crops: in threads, atomically, resumable; the result is a prepared data set."""

import hashlib
import io
import json
import logging
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from detectron2.data import transforms as T

from efpn_d2.data.balancing.plan import BalanceOptions, Crop, plan_crops
from efpn_d2.data.datasets.files import read_json, write_atomically, write_json
from efpn_d2.data.datasets.prepare import prepare
from efpn_d2.data.datasets.prepared import PreparedFiles, protocol_metadata
from efpn_d2.data.datasets.source import RawDataset
from efpn_d2.data.datasets.validation import Report
from efpn_d2.data.datasets.validation.image_files import inspect_images
from efpn_d2.data.image_reading import read_image

logger = logging.getLogger(__name__)

_JPEG_QUALITY = 95
# The weights of red, green and blue in brightness, as Detectron2's augmentation has them.
_GRAY = (0.299, 0.587, 0.114)


def balance_dataset(
    json_file: Path,
    image_root: Path,
    files: PreparedFiles,
    options: BalanceOptions,
    *,
    workers: int = 4,
    progress: bool = True,
) -> dict[str, Any]:
    """Write crops of images with rare classes, as a data set to be used beside the first.

    May be interrupted at any moment and called again: whole crops are kept. The files do not depend
    on ``workers``. The crops lie in a folder beside the JSON; masks are left out.

    Args:
        json_file: a COCO JSON that ``tools/prepare_dataset.py`` has checked.
        image_root: folder of its images.
        files: where to write the new data set.
        options: see :class:`BalanceOptions`.
        workers: threads that read and write images.
        progress: show a bar with the time left.

    Returns:
        The crops' COCO-format data set; without images if no class is rare.

    Raises:
        ValueError: there are crops made with other options or from another file, or something that
            was checked is not so any more.
    """
    coco, _ = read_json(json_file)
    image_dir = files.json_file.with_suffix("")
    _claim_folder(json_file, options, image_dir)
    crops = plan_crops(coco, options)
    _write_crops(coco, image_root, crops, image_dir, workers, progress)
    result = _to_coco(coco, crops, options)
    metadata = protocol_metadata(str(json_file))
    raw = RawDataset(
        result, image_dir, metadata["protocol"], evaluated_classes=metadata.get("evaluated_classes")
    )
    report = Report(files.name, str(json_file))
    prepare(raw, files, report, strict=True, workers=workers, progress=False)
    logger.info("Wrote %d crops to %s", len(crops), image_dir)
    return result


def _claim_folder(json_file: Path, options: BalanceOptions, image_dir: Path) -> None:
    """Note what the crops are made of, or check that those there are made of the same."""
    used = json.loads(json.dumps(asdict(options)))
    used["annotations"] = hashlib.sha256(json_file.read_bytes()).hexdigest()
    options_file = image_dir.with_name(f"{image_dir.name}.options.json")
    image_dir.mkdir(parents=True, exist_ok=True)
    if not options_file.exists() or not any(image_dir.iterdir()):
        write_json(options_file, used, indent=1)
        return
    noted, _ = read_json(options_file)
    changed = sorted(key for key in used.keys() | noted.keys() if used.get(key) != noted.get(key))
    if changed:
        raise ValueError(
            f"The crops in {image_dir} were made with other {', '.join(changed)} ({options_file}): "
            "choose another name, use the same, or delete the folder."
        )


def _file_name(index: int) -> str:
    return f"{index:06d}.jpg"


def _write_crops(
    coco: dict[str, Any],
    image_root: Path,
    crops: list[Crop],
    image_dir: Path,
    workers: int,
    progress: bool,
) -> None:
    from tqdm import tqdm

    paths = [image_dir / _file_name(index) for index in range(len(crops))]
    missing = defaultdict(list)
    for path, crop, facts in zip(paths, crops, inspect_images(paths, workers=workers), strict=True):
        x0, y0, x1, y1 = crop.window
        if facts.problem or (facts.width, facts.height) != (x1 - x0, y1 - y0):
            missing[crop.image_id].append((path, crop))
    sources = {image["id"]: image_root / image["file_name"] for image in coco["images"]}
    tasks = [(sources[image_id], members) for image_id, members in missing.items()]
    with ThreadPoolExecutor(max(workers, 1)) as pool:
        bar = tqdm(
            desc="crops",
            total=len(crops),
            initial=len(crops) - sum(len(members) for _, members in tasks),
            unit="image",
            disable=not progress,
        )
        with bar:
            for written in pool.map(_crop_image, tasks):
                bar.update(written)


def _crop_image(task: tuple[Path, list[tuple[Path, Crop]]]) -> int:
    """Write all crops of one image; returns how many."""
    from PIL import Image

    source, members = task
    pixels = read_image(source, "RGB")
    for path, crop in members:
        x0, y0, x1, y1 = crop.window
        encoded = io.BytesIO()
        content = _change_colors(pixels[y0:y1, x0:x1], crop.colors)
        Image.fromarray(content).save(encoded, "JPEG", quality=_JPEG_QUALITY, subsampling=0)
        write_atomically(path, encoded.getvalue())
    return len(members)


def _change_colors(pixels: np.ndarray, colors: tuple[float, float, float]) -> np.ndarray:
    """Brightness, contrast and saturation of (H, W, 3) RGB pixels, each times its factor."""
    brightness, contrast, saturation = colors
    if colors == (1.0, 1.0, 1.0):
        return pixels
    for source, factor in (
        (lambda image: 0.0, brightness),
        (lambda image: image.mean(), contrast),
        (lambda image: (image @ np.array(_GRAY))[..., None], saturation),
    ):
        blend = T.BlendTransform(source(pixels), src_weight=1 - factor, dst_weight=factor)
        pixels = blend.apply_image(pixels)
    return pixels


def _to_coco(coco: dict[str, Any], crops: list[Crop], options: BalanceOptions) -> dict[str, Any]:
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for index, crop in enumerate(crops):
        x0, y0, x1, y1 = crop.window
        images.append(
            {
                "id": index + 1,
                "file_name": _file_name(index),
                "width": x1 - x0,
                "height": y1 - y0,
                "source_image": crop.image_id,
                "source_window": crop.window,
            }
        )
        for content in crop.objects:
            annotations.append({"id": len(annotations) + 1, "image_id": index + 1, **content})
    return {
        "info": {"description": "crops to balance classes", "options": asdict(options)},
        "images": images,
        "annotations": annotations,
        "categories": coco["categories"],
    }
