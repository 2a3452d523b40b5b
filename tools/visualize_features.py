#!/usr/bin/env python
r"""Visualize a pyramid: the effect of distillation on P'2, and the masks of FBSM.

maps: P'2 beside its target; curve: their distance during training; masks: FBSM's masks over images.
``--masks`` as the first argument is the same as ``masks``.

Examples:
    visualize_features.py maps --input a.jpg b.jpg --annotations val.json --output maps.png \
        --model ESPCN=espcn/config.yaml:espcn/model_final.pth \
        --model FTT=ftt/config.yaml:ftt/model_final.pth
    visualize_features.py curve --run ESPCN=espcn --run FTT=ftt --output curve.png
    visualize_features.py masks --input a.jpg b.jpg --annotations val.json --output masks.png \
        --model fbsm/config.yaml:fbsm/model_final.pth
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from detectron2.config import CfgNode
from detectron2.utils.logger import setup_logger

from efpn_d2.data.image_annotations import find_records, load_records
from efpn_d2.inference.files import find_images
from efpn_d2.inspection.channels import REDUCTIONS
from efpn_d2.inspection.distance_curves import read_distances, write_distance_curves
from efpn_d2.inspection.feature_comparison import ComparisonOptions, compare_features
from efpn_d2.inspection.feature_maps import STRIDES, FeatureMapExtractor
from efpn_d2.inspection.foreground_masks import ForegroundMaskExtractor, draw_masks
from efpn_d2.inspection.image_figures import Crop
from efpn_d2.inspection.pyramids import parse_pyramid_source
from efpn_d2.utils.tool_support import draw_without_window, error_text, positive


def build_parser() -> argparse.ArgumentParser:
    """Build the command-line parser."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True)

    maps = commands.add_parser("maps", help="features of images, their target and stock features")
    maps.add_argument(
        "--model",
        action="append",
        required=True,
        metavar="LABEL=CONFIG:WEIGHTS",
        help="a model; may be repeated. Scale, view and target are those of the first model",
    )
    maps.add_argument(
        "--teacher", default="", metavar="WEIGHTS", help="weights of a separate teacher"
    )
    maps.add_argument("--level", choices=STRIDES, default="p2_prime")
    maps.add_argument(
        "--reduction", choices=REDUCTIONS, default="deviation", help="maps channels to a color"
    )
    maps.add_argument("--differences", action="store_true", help="add |features - target|, by cell")
    add_image_arguments(maps)
    maps.set_defaults(run=run_maps)

    curve = commands.add_parser("curve", help="distance to the target over training")
    curve.add_argument(
        "--run",
        action="append",
        required=True,
        dest="runs",
        metavar="LABEL=FOLDER",
        help="output folder of a stage distill or joint; may be repeated",
    )
    curve.add_argument(
        "--smoothing", type=positive, default=3, help="number of points of the running mean"
    )
    curve.add_argument("--output", type=Path, required=True, help="a .png, .pdf or .svg file")
    curve.set_defaults(run=run_curve)

    masks = commands.add_parser("masks", help="FBSM's masks over images, one panel per level")
    masks.add_argument(
        "--model",
        action="append",
        required=True,
        metavar="[LABEL=]CONFIG:WEIGHTS",
        help="the model, with or without P'2",
    )
    add_image_arguments(masks)
    masks.set_defaults(run=run_masks)
    return parser


def add_image_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments common to all figures of images."""
    parser.add_argument("--input", nargs="+", required=True, help="images, folders or patterns")
    parser.add_argument("--annotations", help="boxes: a COCO JSON or the name of a dataset")
    parser.add_argument(
        "--crop", metavar="X0,Y0,X1,Y1", help="show only this part, in pixels of the file"
    )
    parser.add_argument(
        "--output", type=Path, required=True, help="a file (one row per image) or a folder"
    )
    parser.add_argument(
        "--opts",
        nargs=argparse.REMAINDER,
        default=[],
        help="config keys and values; must come last",
    )


def run_maps(args: argparse.Namespace) -> list[Path]:
    """Draw feature maps, and return the files."""
    crop = parse_crop(args.crop) if args.crop else None
    images = find_images(args.input)
    sources = [parse_pyramid_source(text) for text in args.model]
    extractor = FeatureMapExtractor(
        sources, level=args.level, teacher_weights=args.teacher, opts=args.opts
    )
    records = make_records(images, args.annotations, extractor.cfg)
    options = ComparisonOptions(args.level, args.reduction, crop, args.differences)
    return compare_features(extractor, records, args.output, options)


def run_masks(args: argparse.Namespace) -> list[Path]:
    """Draw masks, and return the files."""
    if len(args.model) > 1:
        raise ValueError(
            f"--model is given {len(args.model)} times: masks are drawn for a single model."
        )
    crop = parse_crop(args.crop) if args.crop else None
    images = find_images(args.input)
    source = parse_pyramid_source(args.model[0], needs_label=False)
    extractor = ForegroundMaskExtractor(source, opts=args.opts)
    records = make_records(images, args.annotations, extractor.cfg)
    return draw_masks(extractor, records, args.output, crop)


def make_records(
    images: Sequence[Path], annotations: str | None, cfg: CfgNode
) -> list[dict[str, Any]]:
    """Return dataset dicts of the images, with their boxes if there are annotations."""
    if not annotations:
        return [{"file_name": str(path)} for path in images]
    return find_records(load_records(annotations, cfg.COCO_DATA.REGISTER), images)


def run_curve(args: argparse.Namespace) -> list[Path]:
    """Draw distance curves, and return the files."""
    runs = dict(split_label(text) for text in args.runs)
    if len(runs) < len(args.runs):
        raise ValueError("Two runs have the same label: give each its own.")
    curves = {label: read_distances(folder) for label, folder in runs.items()}
    write_distance_curves(args.output, curves, args.smoothing)
    return [args.output]


def split_label(text: str) -> tuple[str, str]:
    """Split ``LABEL=FOLDER``."""
    label, _, folder = text.partition("=")
    if not label or not folder:
        raise ValueError(f"'{text}' does not name a run: write LABEL=FOLDER.")
    return label, folder


def parse_crop(text: str) -> Crop:
    """Parse ``x0,y0,x1,y1``."""
    try:
        x0, y0, x1, y1 = map(float, text.split(","))
    except ValueError as error:
        raise ValueError(f"--crop is '{text}': write four numbers, x0,y0,x1,y1.") from error
    return x0, y0, x1, y1


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command line; errors end the program with one sentence."""
    draw_without_window()
    argv = list(sys.argv[1:] if argv is None else argv)
    if argv[:1] == ["--masks"]:
        argv[0] = "masks"
    args = build_parser().parse_args(argv)
    setup_logger(name="efpn_d2")
    try:
        written = args.run(args)
    except (OSError, ValueError) as error:
        sys.exit(f"error: {error_text(error)}")
    for path in written:
        print(path)


if __name__ == "__main__":
    main()
