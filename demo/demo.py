#!/usr/bin/env python
"""Detect objects in images, a video or a camera stream, and draw them.

Examples:
    demo.py --config-file my.yaml --input a.jpg b.jpg --output results --opts MODEL.WEIGHTS my.pth
    demo.py --config-file my.yaml --input 'scenes/*.jpg' --output results --zoom 2
    demo.py --config-file my.yaml --video-input in.mp4 --output out.mp4
"""

import argparse
import errno
import logging
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path

import cv2
import numpy as np
from detectron2.utils.logger import setup_logger
from tqdm import tqdm

from efpn_d2.data.image_reading import read_image
from efpn_d2.inference import DrawingPredictor, load_inference_config
from efpn_d2.inference.files import IMAGE_SUFFIXES, find_images, plan_outputs
from efpn_d2.inference.video import VideoReader, VideoWriter
from efpn_d2.inference.window import check_display, show
from efpn_d2.utils.tool_support import draw_without_window, error_text, positive

logger = logging.getLogger("efpn_d2.demo")


def build_parser() -> argparse.ArgumentParser:
    """Build the command-line parser."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--config-file", required=True, help="a YAML file or a packaged config")
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--input", nargs="+", help="images, folders or quoted patterns")
    source.add_argument("--video-input", help="path to a video file")
    source.add_argument("--webcam", action="store_true", help="use the default camera")
    parser.add_argument(
        "--output", type=Path, help="output file or folder; if not given, show a window"
    )
    parser.add_argument("--confidence-threshold", type=float, default=0.5, help="minimum score")
    parser.add_argument("--zoom", type=positive, default=1, help="enlarge the output N times")
    parser.add_argument(
        "--opts",
        nargs=argparse.REMAINDER,
        default=[],
        help="config keys and values; must come last",
    )
    return parser


def build_detector(args: argparse.Namespace) -> DrawingPredictor:
    """Build the predictor that the arguments describe."""
    cfg = load_inference_config(args.config_file, args.opts, args.confidence_threshold)
    return DrawingPredictor(cfg, args.zoom)


def run_on_images(
    detect: DrawingPredictor, inputs: Sequence[Path], outputs: Sequence[Path] | None
) -> int:
    """Run detection on every image; log the images that fail and continue.

    Returns:
        The exit code: 1 if any image failed.
    """
    failed: Counter[str] = Counter()
    total = 0
    progress = tqdm(inputs, unit="image")
    for i, path in enumerate(progress):
        step = "could not be read"
        try:
            image = read_image(path, "BGR")
            step = "could not be processed"
            picture, count = detect(image)
            step = "could not be written"
            if outputs is not None:
                write_picture(outputs[i], picture)
        # Pillow raises almost any exception on damaged files, and so does a network on unusual
        # images.
        except Exception as error:
            progress.clear()  # moves the next line below the progress bar
            logger.warning(f"Skipped '{path}', which {step}: {error_text(error)}")
            logger.debug("", exc_info=True)
            failed[step] += 1
            continue
        total += count
        if outputs is None and show(picture, wait=0):
            break
    where = ""
    if outputs:
        where = f", written to {outputs[0] if len(outputs) == 1 else outputs[0].parent}"
    print(f"{total} objects in {len(inputs) - failed.total()} of {len(inputs)} images{where}")
    for step, number in failed.items():
        logger.error(f"{number} of {len(inputs)} images {step}, see above.")
    return int(failed.total() > 0)


def write_picture(path: Path, picture: np.ndarray) -> None:
    """Write an image, and create its folder if needed.

    Raises:
        OSError: if the file cannot be written.
        cv2.error: if the format cannot hold the image; JPEG is limited to 65535 pixels per side.
    """
    if path.is_dir():
        raise IsADirectoryError(errno.EISDIR, "it is a folder", str(path))
    path.parent.mkdir(parents=True, exist_ok=True)
    if not cv2.imwrite(str(path), picture):
        raise OSError(
            f"'{path}' cannot be written: choose another output path or free some disk space."
        )


def run_on_video(detect: DrawingPredictor, video: VideoReader, writer: VideoWriter | None) -> int:
    """Run detection on every frame.

    Returns:
        The exit code: 1 if the video has no frame.
    """
    frames: Iterable[np.ndarray] = tqdm(video, total=video.num_frames, unit="frame")
    count = 0
    if writer is None:
        for frame in frames:
            count += 1
            if show(detect(frame)[0], wait=1):
                break
    else:
        with writer:
            for frame in frames:
                writer.write(detect(frame)[0])
                count += 1
        print(f"{count} frames, written to {writer.path}")
    if not count:
        logger.error("The video has no readable frame.")
    return int(count == 0)


def check_folders(outputs: Sequence[Path]) -> None:
    """Check that the output folders exist or can be created.

    Raises:
        NotADirectoryError: if a file is in the way.
    """
    for folder in {output.absolute().parent for output in outputs}:
        there = next(path for path in (folder, *folder.parents) if path.exists())
        if not there.is_dir():
            raise NotADirectoryError(errno.ENOTDIR, "it is not a folder", str(there))


def prepare(args: argparse.Namespace) -> Callable[[], int]:
    """Check the arguments, and return a function that does the work."""
    if not 0 <= args.confidence_threshold <= 1:
        raise ValueError(
            f"--confidence-threshold must be between 0 and 1, not {args.confidence_threshold}."
        )
    if args.output is None:
        check_display()
    if args.input:
        inputs = find_images(args.input)
        outputs = plan_outputs(inputs, args.output) if args.output else None
        check_folders(outputs or ())
        for output in outputs or ():
            if not cv2.haveImageWriter(str(output)):
                raise ValueError(
                    f"Cannot write a picture as '{output.name}'; use one of "
                    f"{', '.join(IMAGE_SUFFIXES)}."
                )
        return partial(run_on_images, build_detector(args), inputs, outputs)
    video = VideoReader(0 if args.webcam else args.video_input)
    source = Path("webcam.mp4" if args.webcam else args.video_input)
    output = plan_outputs([source], args.output, ".mp4")[0] if args.output else None
    if output:
        check_folders([output])
        if output.is_dir():
            raise IsADirectoryError(errno.EISDIR, "it is a folder", str(output))
    writer = VideoWriter(output, video.fps) if output else None
    return partial(run_on_video, build_detector(args), video, writer)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line described in the module's docstring.

    Returns:
        The exit code: 0, or 1 if an input could not be read. Invalid arguments exit with 2, as in
        argparse.
    """
    draw_without_window()
    parser = build_parser()
    args = parser.parse_args(argv)
    setup_logger(name="efpn_d2")
    setup_logger(name="fvcore")
    try:
        run = prepare(args)
    except (OSError, ValueError) as error:
        parser.error(error_text(error))
    try:
        return run()
    except OSError as error:
        logger.error(error_text(error))
        return 1


if __name__ == "__main__":
    sys.exit(main())
