#!/usr/bin/env python
r"""Recommend settings for a dataset: object sizes, pyramid levels, anchors, SMALL_BOX_SIZE, scale.

Prints tables, and writes them (report.txt), a figure (analysis.png) and the recommended settings
(recommended.yaml, to merge onto the config) to a folder.

Examples:
    analyze_dataset.py --dataset train.json --config-file my.yaml --output analysis
    analyze_dataset.py --dataset coco_2017_val --config-file my.yaml --output analysis \
        --opts INPUT.MIN_SIZE_TEST 1200 INPUT.MAX_SIZE_TEST 2000
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from detectron2.utils.logger import setup_logger

from efpn_d2.data.image_annotations import load_records
from efpn_d2.dataset_advice import analyze_dataset, format_analysis, format_settings
from efpn_d2.dataset_advice.figure import write_analysis_figure
from efpn_d2.inference import load_inference_config
from efpn_d2.utils.tool_support import draw_without_window, error_text


def build_parser() -> argparse.ArgumentParser:
    """Build the command-line parser."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--dataset", required=True, help="a COCO JSON or the name of a dataset")
    parser.add_argument(
        "--config-file", default="Base-RCNN-EFPN.yaml", help="a YAML file or a packaged config"
    )
    parser.add_argument("--output", type=Path, default=Path("output/analysis"), help="a folder")
    parser.add_argument(
        "--opts",
        nargs=argparse.REMAINDER,
        default=[],
        help="config keys and values; must come last",
    )
    return parser


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command line; errors end the program with one sentence."""
    draw_without_window()
    args = build_parser().parse_args(argv)
    setup_logger(name="efpn_d2")
    try:
        cfg = load_inference_config(args.config_file, [*args.opts, "MODEL.DEVICE", "cpu"])
        records = load_records(args.dataset, cfg.COCO_DATA.REGISTER)
        analysis = analyze_dataset(records, cfg, Path(args.dataset).name)
        report = format_analysis(analysis)
        args.output.mkdir(parents=True, exist_ok=True)
        (args.output / "report.txt").write_text(report + "\n")
        (args.output / "recommended.yaml").write_text(format_settings(analysis))
        write_analysis_figure(args.output / "analysis.png", analysis)
    except (OSError, ValueError, KeyError, AssertionError) as error:
        text = error.args[0] if isinstance(error, KeyError) and error.args else error_text(error)
        sys.exit(f"error: {' '.join(str(text).split())}")
    print(f"{report}\n")
    for name in ("report.txt", "analysis.png", "recommended.yaml"):
        print(args.output / name)


if __name__ == "__main__":
    main()
