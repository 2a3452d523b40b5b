#!/usr/bin/env python
"""Convert a dataset to checked COCO JSON files, and report all errors in it.

The images stay in place. A dataset NAME is written to OUTPUT/NAME.json, with a report of every bad
record in OUTPUT/NAME.report.json. By default OUTPUT is $DETECTRON2_DATASETS/prepared, where
DATASETS.TRAIN and DATASETS.TEST find it by name.

Examples:
    prepare_dataset.py tt100k --source tt100k_2021 --classes all
    prepare_dataset.py coco --source mine.json --images mine/images --strict
"""

import argparse
import importlib
import logging
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from efpn_d2.data.converters import CONVERTERS, Selection
from efpn_d2.data.converters.prepare import NothingLeftError, ProblemsFoundError, prepare
from efpn_d2.data.datasets.prepared import PreparedFiles
from efpn_d2.data.validation import ValidationReport
from efpn_d2.utils.tool_support import error_text, positive


def get_parser() -> argparse.ArgumentParser:
    """Build the command-line parser, with one subcommand per dataset."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--import",
        dest="modules",
        action="append",
        default=[],
        metavar="MODULE",
        help="a module that registers further converters, found from here",
    )
    commands = parser.add_subparsers(dest="dataset", required=True)
    for name, converter in CONVERTERS.items():
        text = converter.description
        command = commands.add_parser(name, help=text, description=text)
        _add_common_options(command)
        for option in converter.options:
            command.add_argument(
                f"--{option.name}",
                choices=option.choices,
                default=option.default,
                type=option.type,
                help=option.help,
            )
    return parser


def import_modules(argv: Sequence[str]) -> None:
    """Import what ``--import`` names, so that its converters are there for the command line."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--import", dest="modules", action="append", default=[])
    modules = parser.parse_known_args(argv)[0].modules
    if modules:
        sys.path.insert(0, os.getcwd())
    for module in modules:
        importlib.import_module(module)


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
    argv = sys.argv[1:] if argv is None else argv
    import_modules(argv)
    parser = get_parser()
    args = parser.parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    converter = CONVERTERS[args.dataset]
    selection = Selection(args.splits, {o.name: getattr(args, o.name) for o in converter.options})
    failures = []
    if not args.source.exists():
        parser.error(f"--source: '{args.source}' does not exist.")
    if not converter.recognises(args.source):
        others = [c.name for c in CONVERTERS.values() if c.recognises(args.source)]
        if others:
            parser.error(
                f"--source '{args.source}' is laid out as {others[0]}, not {converter.name}."
            )
    try:
        for name, read in converter.datasets(args.source, selection):
            files = PreparedFiles(args.output, name)
            report = ValidationReport(name, str(args.source))
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
