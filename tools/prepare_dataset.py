#!/usr/bin/env python
"""Convert a data set to checked COCO JSON files, and report everything that was wrong in it.

The images stay where they are. A set NAME becomes OUTPUT/NAME.json, with a report of every bad
record in OUTPUT/NAME.report.json. By default OUTPUT is $DETECTRON2_DATASETS/prepared, from where
DATASETS.TRAIN and DATASETS.TEST take it by its name.

Examples:
    prepare_dataset.py tt100k --source tt100k_2021 --classes all
    prepare_dataset.py coco --source mine.json --images mine/images --strict
"""

import argparse
import logging
import sys
from collections.abc import Sequence
from pathlib import Path

from efpn_d2.data.datasets.prepare import NothingLeftError, ProblemsFoundError, prepare
from efpn_d2.data.datasets.prepared import PreparedFiles
from efpn_d2.data.datasets.readers import READERS, Selection
from efpn_d2.data.datasets.validation import Report
from efpn_d2.tool_support import error_text, positive


def get_parser() -> argparse.ArgumentParser:
    """The command line: one subcommand per data set."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="dataset", required=True)
    for name, description in (
        ("tt100k", "Tsinghua-Tencent 100K of 2016 or 2021"),
        ("aitod", "AI-TOD v1 or v2"),
        ("visdrone", "VisDrone-DET"),
        ("coco", "COCO, or any file in its format"),
    ):
        command = commands.add_parser(name, help=description, description=description)
        _add_common_options(command)
        if name in ("tt100k", "aitod"):
            versions = ("2016", "2021") if name == "tt100k" else ("v1", "v2")
            command.add_argument(
                "--version", choices=versions, help="default: by the names of the files"
            )
        if name == "tt100k":
            command.add_argument(
                "--classes",
                choices=("all", "45"),
                default="all",
                help="all: train, test and other with all classes, and test45 with the objects of "
                "the 45 evaluated ones; 45: a data set that has only those",
            )
        if name == "coco":
            command.add_argument("--images", type=Path, help="image folder, with a JSON as source")
            command.add_argument("--name", help="of the data set, with a JSON as source")
    return parser


def _add_common_options(command: argparse.ArgumentParser) -> None:
    command.add_argument("--source", type=Path, required=True, help="folder (coco: or JSON)")
    command.add_argument(
        "--output", type=Path, help="folder to write to (default: $DETECTRON2_DATASETS/prepared)"
    )
    command.add_argument("--splits", nargs="+", help="default: those that are there")
    command.add_argument(
        "--strict", action="store_true", help="fail, and write the report alone, on any problem"
    )
    command.add_argument(
        "--decode",
        action="store_true",
        help="decode all images, which finds damage inside of files too, but takes far longer",
    )
    command.add_argument("--workers", type=positive, default=4, help="threads that read images (4)")
    command.add_argument("--quiet", action="store_true", help="no progress bar")


def main(argv: Sequence[str] | None = None) -> None:
    """Prepare the splits one after the other; print a summary of each and where it is."""
    parser = get_parser()
    args = parser.parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    options = ("version", "classes", "images", "name", "splits")
    selection = Selection(**{key: getattr(args, key, None) for key in options})
    failures = []
    if not args.source.exists():
        parser.error(f"--source: there is no '{args.source}'.")
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
                written = f"  report: {files.report}\n  data set: {files.json_file}"
            except NothingLeftError as error:
                failures.append(str(error))
                written = "  report and data set: not written"
            except ProblemsFoundError as error:
                failures.append(str(error))
                written = f"  report: {files.report}\n  data set: not written"
            print(f"{report.summary()}\n{written}")
    except (OSError, ValueError) as error:
        parser.error(error_text(error))
    if failures:
        sys.exit("\n".join(f"error: {failure}" for failure in failures))


if __name__ == "__main__":
    main()
