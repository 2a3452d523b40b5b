#!/usr/bin/env python
"""Write crops of a prepared data set, so that each class has about as many objects (paper IV-A3).

The crops are a data set of their own, to train on beside the first. Interrupted, it goes on where
it stopped.

Example:
    balance_dataset.py --source datasets/prepared/tt100k_2021_train.json
    train_net.py ... DATASETS.TRAIN "('tt100k_2021_train', 'tt100k_2021_train_crops')"
"""

import argparse
import logging
from collections.abc import Sequence
from pathlib import Path

from efpn_d2.data.balancing import BalanceOptions, balance_dataset, count_by_class
from efpn_d2.data.datasets.files import read_json
from efpn_d2.data.datasets.prepared import PreparedFiles, prepared_image_root
from efpn_d2.tool_support import error_text, not_negative, positive


def get_parser() -> argparse.ArgumentParser:
    """The command line's options; what is not given keeps :class:`BalanceOptions`' default."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--source", type=Path, required=True, help="prepared COCO JSON")
    parser.add_argument("--images", type=Path, help="image folder (default: the prepared set's)")
    parser.add_argument("--output", type=Path, help="folder to write to (default: the source's)")
    parser.add_argument("--name", help="of the new data set (default: the source's with _crops)")
    parser.add_argument("--workers", type=positive, default=4, help="threads for images (4)")
    parser.add_argument("--quiet", action="store_true", help="no progress bar")
    options = parser.add_argument_group("what to reach")
    for flag, kind, text in (
        ("--target", positive, "objects of each class to reach (1000)"),
        ("--min-instances", not_negative, "classes with fewer objects stay as they are (100)"),
        ("--min-inside", float, "share of a cut object's area to keep it (0.7)"),
        ("--color-jitter", float, "colour factors from 1 - x to 1 + x (0.25)"),
        ("--seed", not_negative, "of everything that is drawn (0)"),
    ):
        options.add_argument(flag, type=kind, default=argparse.SUPPRESS, help=text)
    options.add_argument(
        "--crop-scale",
        type=float,
        nargs=2,
        metavar=("LOW", "HIGH"),
        default=argparse.SUPPRESS,
        help="sides of a crop as shares of the image's (0.5 1.0): scaled to the same input, "
        "objects come out 1 / share times as large",
    )
    return parser


def main(argv: Sequence[str] | None = None) -> None:
    """Write the crops; print what each class had and has, and how to train on them."""
    parser = get_parser()
    args = vars(parser.parse_args(argv))
    own = ("source", "images", "output", "name", "workers", "quiet")
    source, images, output, name, workers, quiet = (args.pop(key) for key in own)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    try:
        if "crop_scale" in args:
            args["crop_scale"] = tuple(args["crop_scale"])
        options = BalanceOptions(**args)
        files = PreparedFiles(output or source.parent, name or f"{source.stem}_crops")
        before = count_by_class(read_json(source)[0])
        image_root = images or Path(prepared_image_root(source))
        crops = balance_dataset(
            source, image_root, files, options, workers=workers, progress=not quiet
        )
    except (OSError, ValueError) as error:
        parser.error(error_text(error))
    added = count_by_class(crops)
    for label in sorted(before, key=before.get, reverse=True):
        if added[label]:
            print(f"{label}: {before[label]} + {added[label]} in crops")
    few = [label for label, number in before.items() if 0 < number < options.min_instances]
    if few:
        limit = f"fewer than {options.min_instances} objects (--min-instances)"
        print(f"no crops of their own, for they have {limit}: {', '.join(few)}")
    print(f"{files.json_file}: {len(crops['images'])} crops")
    if crops["images"]:
        print(f"Train on: DATASETS.TRAIN \"('{source.stem}', '{files.name}')\"")


if __name__ == "__main__":
    main()
