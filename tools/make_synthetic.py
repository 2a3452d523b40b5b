#!/usr/bin/env python
"""Write the synthetic small-sign data set to disk. Interrupted, it goes on where it stopped."""

import argparse
from collections.abc import Sequence

from efpn_d2.data.datasets.synthetic import SyntheticConfig, generate_synthetic, synthetic_paths
from efpn_d2.tool_support import error_text, not_negative, positive


def get_parser() -> argparse.ArgumentParser:
    """The command line's options; what is not given keeps :class:`SyntheticConfig`'s default."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--root", help="data set folder (default: $DETECTRON2_DATASETS or datasets)"
    )
    parser.add_argument("--variant", choices=("native1x", "native2x", "both"), default="both")
    parser.add_argument(
        "--train", type=not_negative, default=1000, help="number of training images"
    )
    parser.add_argument("--val", type=not_negative, default=200, help="number of validation images")
    parser.add_argument("--workers", type=positive, help="processes (default: one per core)")
    options = parser.add_argument_group("what the images look like; sizes in student pixels")
    options.add_argument(
        "--size",
        dest="student_size",
        type=positive,
        default=argparse.SUPPRESS,
        help="side of the image (320); set INPUT.MIN_SIZE_TRAIN and INPUT.MIN_SIZE_TEST to the "
        "same, so that the network sees it as it is; Synthetic/demo_faster_rcnn_R_18_EFPN.yaml has "
        "192",
    )
    for flag, name, kind in (
        ("--seed", "seed", not_negative),
        ("--format", "image_format", str),
        ("--min-size", "min_size", float),
        ("--max-size", "max_size", float),
        ("--max-objects", "max_objects", positive),
        ("--clutter", "clutter", float),
    ):
        options.add_argument(flag, dest=name, type=kind, default=argparse.SUPPRESS)
    return parser


def main(argv: Sequence[str] | None = None) -> None:
    """Generate train and val of the chosen variants and print where they are."""
    parser = get_parser()
    options = vars(parser.parse_args(argv))
    root, workers, variant = (options.pop(name) for name in ("root", "workers", "variant"))
    counts = {split: options.pop(split) for split in ("train", "val")}
    try:
        for name in ("native1x", "native2x") if variant == "both" else (variant,):
            for split, count in counts.items():
                config = SyntheticConfig(variant=name, split=split, num_images=count, **options)
                json_file = generate_synthetic(config, root, workers)
                image_dir = synthetic_paths(name, split, root)[1]
                print(f"synthetic_signs_{name}_{split}: {count} images in {image_dir}, {json_file}")
    except (OSError, ValueError) as error:
        parser.error(error_text(error))


if __name__ == "__main__":
    main()
