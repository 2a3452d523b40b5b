#!/usr/bin/env python
r"""Write an HTML report of a detector's detections, misses and errors.

Examples:
    report.py --predictions output/inference/coco_instances_results.json --dataset val.json \
        --images images/ --output report/
    report.py --predictions fpn.json --compare efpn.json --names FPN EFPN --dataset val.json \
        --images images/ --output report/ --protocol aitod
"""

import argparse
import logging
import sys
from collections.abc import Sequence
from pathlib import Path

from efpn_d2.evaluation.coco_backends import BACKENDS
from efpn_d2.report import REPORT_RULES, ReportOptions, ReportRules, write_report
from efpn_d2.utils.tool_support import error_text, not_negative, positive


def build_parser() -> argparse.ArgumentParser:
    """Build the command-line parser."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--predictions", required=True, metavar="FILE", help="COCO results")
    parser.add_argument("--dataset", required=True, help="COCO JSON, or the name of a dataset")
    parser.add_argument(
        "--images", metavar="DIR", help="image folder of a COCO JSON that is not prepared"
    )
    parser.add_argument(
        "--output", required=True, type=Path, metavar="DIR", help="folder of the report"
    )
    parser.add_argument(
        "--compare", metavar="FILE", help="a second run; differences are relative to the first"
    )
    parser.add_argument("--names", nargs="+", default=(), help="names of the runs")
    parser.add_argument(
        "--evaluation",
        nargs="+",
        default=(),
        metavar="FILE",
        help="evaluation_<dataset>.json of each run, to show numbers of other protocols too",
    )
    parser.add_argument("--title", help="heading of the page")
    rules = parser.add_argument_group("how to count")
    rules.add_argument(
        "--protocol",
        choices=sorted(REPORT_RULES),
        help="that of a prepared data set, if it is of COCO's kind, else small",
    )
    rules.add_argument(
        "--size-bins", nargs="+", type=float, metavar="PX", help="edges that replace the protocol's"
    )
    rules.add_argument("--max-dets", type=positive, metavar="N", help="overrides the protocol's")
    rules.add_argument(
        "--backend", choices=("auto", *BACKENDS), default="auto", help="backend of AP and AR"
    )
    rules.add_argument(
        "--score-threshold", type=float, help="for counts and images (default: where F1 is highest)"
    )
    pictures = parser.add_argument_group("pictures")
    pictures.add_argument(
        "--max-images",
        type=not_negative,
        default=ReportOptions.max_images,
        help="images to include",
    )
    pictures.add_argument(
        "--max-side",
        type=positive,
        default=ReportOptions.max_side,
        help="downscale larger images",
    )
    return parser


def rules_of(args: argparse.Namespace, annotations: str) -> ReportRules:
    """Return the protocol given by the command line, or by the dataset."""
    from efpn_d2.data.datasets.prepared import protocol_metadata

    name = args.protocol or protocol_metadata(annotations)["protocol"]
    if not args.protocol and (name == "coco" or name not in REPORT_RULES):
        name = "small"
    return REPORT_RULES[name].changed(args.size_bins or (), args.max_dets)


def find_data(dataset: str, images: str | None) -> tuple[str, str]:
    """Return annotation file and image folder of a COCO JSON or a named dataset."""
    from detectron2.data import MetadataCatalog

    from efpn_d2.data.datasets import register_synthetic
    from efpn_d2.data.datasets.prepared import (
        PreparedFiles,
        prepared_image_root,
        register_prepared,
    )

    path = Path(dataset)
    if path.suffix == ".json":
        if images:
            return dataset, images
        if not PreparedFiles(path.parent, path.stem).description.is_file():
            raise ValueError("--images is required: the folder that holds the images of the JSON.")
        return dataset, prepared_image_root(path)
    register_synthetic()
    register_prepared(dataset)
    metadata = MetadataCatalog.get(dataset)
    if "json_file" not in metadata.as_dict():
        raise ValueError(
            f"'{dataset}' is neither a COCO JSON nor a registered dataset with one, nor a "
            "prepared one in DETECTRON2_DATASETS: give the JSON and --images."
        )
    return metadata.json_file, images or metadata.image_root


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line."""
    args = build_parser().parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    try:
        annotations, images = find_data(args.dataset, args.images)
        page = write_report(
            [args.predictions, *([args.compare] if args.compare else [])],
            annotations,
            images,
            args.output,
            ReportOptions(
                title=args.title,
                rules=rules_of(args, annotations),
                backend=args.backend,
                threshold=args.score_threshold,
                max_images=args.max_images,
                max_side=args.max_side,
                names=args.names,
                evaluations=args.evaluation,
            ),
        )
    except (OSError, ValueError) as error:
        sys.exit(f"error: {error_text(error)}")
    print(page)


if __name__ == "__main__":
    main()
