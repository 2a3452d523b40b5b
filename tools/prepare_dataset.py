#!/usr/bin/env python
"""Convert a dataset to checked COCO JSON files, and report all errors in it.

The images stay in place. A dataset NAME is written to OUTPUT/NAME.json, with a report of every bad
record in OUTPUT/NAME.report.json. By default OUTPUT is $DETECTRON2_DATASETS/prepared, where
DATASETS.TRAIN and DATASETS.TEST find it by name.

Examples:
    prepare_dataset.py tt100k --source tt100k_2021 --classes all
    prepare_dataset.py coco --source mine.json --images mine/images --strict
"""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Sequence
from pathlib import Path

from efpn_d2.data.converters.prepare import NothingLeftError, ProblemsFoundError, prepare
from efpn_d2.data.converters.readers import READERS, Selection
from efpn_d2.data.datasets.prepared import PreparedFiles
from efpn_d2.data.validation import Report
from efpn_d2.utils.tool_support import error_text, positive


def get_parser() -> argparse.ArgumentParser:
    """Build the command-line parser, with one subcommand per dataset."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="dataset", required=True)
    for name, description in (
        ("tt100k", "Tsinghua-Tencent 100K 2016 or 2021"),
        ("aitod", "AI-TOD v1 or v2"),
        ("visdrone", "VisDrone-DET"),
        ("coco", "COCO, or any file in its format"),
    ):
        command = commands.add_parser(name, help=description, description=description)
        _add_common_options(command)
        if name in ("tt100k", "aitod"):
            versions = ("2016", "2021") if name == "tt100k" else ("v1", "v2")
            command.add_argument(
                "--version", choices=versions, help="default: detected from the file names"
            )
        if name == "tt100k":
            command.add_argument(
                "--classes",
                choices=("all", "45"),
                default="all",
                help=(
                    "all: train, test and other with all classes, and test45 with the objects "
                    "of the 45 evaluated ones; 45: a dataset that has only those"
                ),
            )
        if name == "coco":
            command.add_argument(
                "--images", type=Path, help="image folder, if the source is a JSON"
            )
            command.add_argument("--name", help="name of the dataset, if the source is a JSON")
    return parser


def _add_common_options(command: argparse.ArgumentParser) -> None:
    command.add_argument("--source", type=Path, required=True, help="folder (coco: or JSON)")
    command.add_argument(
        "--output", type=Path, help="folder to write to (default: $DETECTRON2_DATASETS/prepared)"
    )
    command.add_argument("--splits", nargs="+", help="default: all that exist")
    command.add_argument(
        "--strict",
        action="store_true",
        help="write only the report, and fail, if there is any problem",
    )
    command.add_argument(
        "--decode",
        action="store_true",
        help="decode all images, which also finds damage inside files, but takes much longer",
    )
    command.add_argument("--workers", type=positive, default=4, help="number of threads (4)")
    command.add_argument("--quiet", action="store_true", help="no progress bar")


def main(argv: Sequence[str] | None = None) -> None:
    """Prepare the splits; print a summary and the path of each."""
    parser = get_parser()
    args = parser.parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    options = ("version", "classes", "images", "name", "splits")
    selection = Selection(**{key: getattr(args, key, None) for key in options})
    failures = []
    if not args.source.exists():
        parser.error(f"--source: '{args.source}' does not exist.")
    try:
        for name, read in READERS[args.dataset](args.source, selection):
            files = PreparedFiles(args.output, name)
            report = Report(name, str(args.source))
            try:
                prepare(
                    read(report),
                    files,
                    report,
                    strict=args.strict,
                    decode=args.decode,
                    workers=args.workers,
                    progress=not args.quiet,
                )
                written = f"  report: {files.report}\n  dataset: {files.json_file}"
            except NothingLeftError as error:
                failures.append(str(error))
                written = "  report and dataset: not written"
            except ProblemsFoundError as error:
                failures.append(str(error))
                written = f"  report: {files.report}\n  dataset: not written"
            print(f"{report.summary()}\n{written}")
    except (OSError, ValueError) as error:
        parser.error(error_text(error))
    if failures:
        sys.exit("\n".join(f"error: {failure}" for failure in failures))


if __name__ == "__main__":
    main()
