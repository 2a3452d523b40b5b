"""Write a split of the synthetic set to disk: in parallel, atomically, resumable."""

import json
import logging
import math
import multiprocessing
import os
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from functools import partial
from multiprocessing.context import BaseContext
from pathlib import Path
from typing import Any

from efpn_d2.data.datasets.synthetic.config import SyntheticConfig, synthetic_paths
from efpn_d2.data.datasets.synthetic.glyphs import CLASS_NAMES
from efpn_d2.data.datasets.synthetic.layout import plan_layout
from efpn_d2.data.datasets.synthetic.scene import annotate, capture, render_scene

logger = logging.getLogger(__name__)

# To be raised whenever the same options give other images or annotations than before.
GENERATOR_VERSION = 1
# Starting workers takes seconds: not worth it for fewer images than this.
IMAGES_PER_WORKER = 250


def generate_synthetic(
    config: SyntheticConfig,
    root: str | None = None,
    workers: int | None = None,
    progress: bool = True,
) -> Path:
    """Generate the images of a split that are not there yet, then its COCO JSON.

    May be interrupted at any moment and called again: whole images are kept, damaged ones are drawn
    again, and the JSON comes out the same. The files do not depend on ``workers``.

    Args:
        config: what to generate.
        root: folder of all data sets; None: ``$DETECTRON2_DATASETS`` or ``datasets``.
        workers: processes to use; None: as many as there are cores and work for. Scripts that use
            more than one need the usual ``if __name__ == "__main__":``.
        progress: show a bar with the time left.

    Returns:
        Path of the COCO JSON.

    Raises:
        ValueError: the folder holds a split made with other options.
    """
    from tqdm import tqdm

    json_file, image_dir = synthetic_paths(config.variant, config.split, root)
    for folder in (json_file.parent, image_dir):
        folder.mkdir(parents=True, exist_ok=True)
    _claim_folder(config, image_dir, json_file.with_suffix(".options.json"))

    results = []
    with _ordered_map(config.num_images, workers) as ordered_map:
        images = ordered_map(partial(make_image, config, image_dir), range(config.num_images))
        description = f"{config.variant} {config.split}"
        for result in tqdm(
            images, description, config.num_images, unit="image", disable=not progress
        ):
            results.append(result)
    _write_atomically(json_file, json.dumps(_coco_dict(config, results)).encode())
    logger.info("Wrote %d images and %s", config.num_images, json_file)
    return json_file


def make_image(config: SyntheticConfig, image_dir: Path, index: int) -> list[dict[str, Any]]:
    """Write image ``index`` unless it is there already, and return its annotations."""
    import cv2

    path = image_dir / _file_name(config, index)
    layout = plan_layout(config, index)
    if not _is_whole_image(path, config.file_size):
        image = capture(config, index, render_scene(config, index, layout))
        quality = [cv2.IMWRITE_JPEG_QUALITY, config.jpeg_quality]
        _, encoded = cv2.imencode(
            path.suffix, image, quality if config.image_format == "jpg" else []
        )
        _write_atomically(path, encoded.tobytes())
    return annotate(config, layout)


def _file_name(config: SyntheticConfig, index: int) -> str:
    return f"{index:06d}.{config.image_format}"


def _is_whole_image(path: Path, size: int) -> bool:
    from PIL import Image

    try:
        with Image.open(path) as image:
            image.load()
            return image.size == (size, size)
    except (OSError, SyntaxError):  # missing, truncated or no image; PIL's PNG reader raises both
        return False


def _write_atomically(path: Path, content: bytes) -> None:
    partial_path = path.with_name(f".{path.name}.partial")
    partial_path.write_bytes(content)
    os.replace(partial_path, path)


def _claim_folder(config: SyntheticConfig, image_dir: Path, options_file: Path) -> None:
    """Note the options beside the JSON, or check that the images there were made with them."""
    options = {"generator_version": GENERATOR_VERSION, **config.image_options()}
    if not options_file.exists() or not any(image_dir.iterdir()):
        _write_atomically(options_file, json.dumps(options, indent=1).encode())
        return
    noted = json.loads(options_file.read_text())
    changed = [
        f"{key} {noted.get(key)!r} (now {options.get(key)!r})"
        for key in sorted(noted.keys() | options.keys())
        if noted.get(key) != options.get(key)
    ]
    if changed:
        raise ValueError(
            f"The images in {image_dir} were made with {', '.join(changed)} ({options_file}): "
            "choose another root, use the same options, or delete the folder."
        )


@contextmanager
def _ordered_map(num_images: int, workers: int | None) -> Iterator[Any]:
    """A ``map`` over ``workers`` processes whose results come in order."""
    if workers is None:
        workers = min(os.cpu_count() or 1, math.ceil(num_images / IMAGES_PER_WORKER))
    if workers <= 1:
        yield map
        return
    executor = ProcessPoolExecutor(
        workers, mp_context=_process_context(), initializer=_use_one_thread
    )
    try:
        yield partial(executor.map, chunksize=4)
    finally:
        executor.shutdown(cancel_futures=True)


def _process_context() -> BaseContext:
    """How to start workers: never by forking this process, whose threads may hold locks.

    A fork server imports this package, and with it torch, once instead of once per worker.
    """
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])
    return context


def _use_one_thread() -> None:
    import cv2

    cv2.setNumThreads(1)


def _coco_dict(config: SyntheticConfig, results: list[list[dict[str, Any]]]) -> dict[str, Any]:
    """The COCO JSON; image and annotation ids count from 1."""
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for index, objects in enumerate(results):
        images.append(
            {
                "id": index + 1,
                "file_name": _file_name(config, index),
                "width": config.file_size,
                "height": config.file_size,
            }
        )
        for content in objects:
            annotations.append({"id": len(annotations) + 1, "image_id": index + 1, **content})
    return {
        "info": {
            "description": "efpn_d2 synthetic signs",
            "file_pixels_per_student_pixel": config.scale,
            "options": config.image_options(),
        },
        "images": images,
        "annotations": annotations,
        "categories": [
            {"id": number, "name": name, "supercategory": name.split("_")[0]}
            for number, name in enumerate(CLASS_NAMES, start=1)
        ],
    }
