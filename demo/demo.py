#!/usr/bin/env python
"""Detect objects in images, a video or a camera's stream, and draw them.

Examples:
    demo.py --config-file my.yaml --input a.jpg b.jpg --output results --opts MODEL.WEIGHTS my.pth
    demo.py --config-file my.yaml --input 'scenes/*.jpg' --output results --zoom 2
    demo.py --config-file my.yaml --video-input in.mp4 --output out.mp4
"""

import argparse
import logging
import sys
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
from efpn_d2.tool_support import draw_without_window, error_text, positive

logger = logging.getLogger("efpn_d2.demo")


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--config-file", required=True, help="a YAML file or a packaged config")
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--input", nargs="+", help="images, folders, patterns in quotes")
    source.add_argument("--video-input", help="a video file")
    source.add_argument("--webcam", action="store_true", help="the first camera")
    parser.add_argument("--output", type=Path, help="a file or a folder; without it, a window")
    parser.add_argument("--confidence-threshold", type=float, default=0.5, help="least score")
    parser.add_argument("--zoom", type=positive, default=1, help="enlarge the pictures N times")
    parser.add_argument(
        "--opts", nargs=argparse.REMAINDER, default=[], help="config keys and values, at the end"
    )
    return parser


def build_detector(args: argparse.Namespace) -> DrawingPredictor:
    cfg = load_inference_config(args.config_file, args.opts, args.confidence_threshold)
    return DrawingPredictor(cfg, args.zoom)


def run_on_images(
    detect: DrawingPredictor, inputs: Sequence[Path], outputs: Sequence[Path] | None
) -> int:
    """Detect in every image that can be read.

    Returns:
        The exit code: 1 if any could not.
    """
    unreadable, total = 0, 0
    progress = tqdm(inputs, unit="image")
    for i, path in enumerate(progress):
        try:
            image = read_image(path, "BGR")
        except Exception as error:  # Pillow raises nearly anything on damaged files
            progress.clear()  # keeps the line below off the bar
            logger.warning(f"Skipped '{path}', which cannot be read as an image: {error}")
            unreadable += 1
            continue
        picture, count = detect(image)
        total += count
        if outputs is None:
            if show(picture, wait=0):
                break
            continue
        outputs[i].parent.mkdir(parents=True, exist_ok=True)
        if not cv2.imwrite(str(outputs[i]), picture):
            raise OSError(f"Cannot write the picture '{outputs[i]}'.")
    where = ""
    if outputs:
        where = f", written to {outputs[0] if len(outputs) == 1 else outputs[0].parent}"
    print(f"{total} objects in {len(inputs) - unreadable} of {len(inputs)} images{where}")
    if unreadable:
        logger.error(f"{unreadable} of {len(inputs)} images could not be read, see above.")
    return int(unreadable > 0)


def run_on_video(detect: DrawingPredictor, video: VideoReader, writer: VideoWriter | None) -> int:
    """Detect in every frame.

    Returns:
        The exit code: 1 if there was no frame.
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


def prepare(args: argparse.Namespace) -> Callable[[], int]:
    """Everything that can go wrong because of the arguments; what is left is the work itself."""
    if not 0 <= args.confidence_threshold <= 1:
        raise ValueError(
            f"--confidence-threshold must be between 0 and 1, not {args.confidence_threshold}."
        )
    if args.output is None:
        check_display()
    if args.input:
        inputs = find_images(args.input)
        outputs = plan_outputs(inputs, args.output) if args.output else None
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
    writer = VideoWriter(output, video.fps) if output else None
    return partial(run_on_video, build_detector(args), video, writer)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; see the module's own text.

    Returns:
        The exit code: 0, or 1 if an input could not be read. Arguments that cannot be followed
        exit with 2, as argparse does.
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
    return run()


if __name__ == "__main__":
    sys.exit(main())
