#!/usr/bin/env python
"""Parameters and multiply-accumulates of the pyramid, FPN against EFPN.

Writes benchmarks/results/cost.json, from which the README's table is made.
"""

import argparse
import logging
import warnings
from pathlib import Path
from typing import Any

import torch
from detectron2.layers import ShapeSpec
from detectron2.modeling import build_backbone
from fvcore.nn import FlopCountAnalysis

import efpn_d2
from efpn_d2.run_record import collect_run_record, write_json

RESULTS = Path(__file__).resolve().parent / "results" / "cost.json"
CONFIG = "COCO-Detection/faster_rcnn_R_50_EFPN_1x.yaml"
VARIANTS = {
    "FPN": ["MODEL.BACKBONE.NAME", "build_resnet_fpn_backbone"],
    "EFPN, preset paper": ["MODEL.EFPN.PRESET", "paper"],
    "EFPN, preset reference": ["MODEL.EFPN.PRESET", "reference"],
    "EFPN, preset fast": ["MODEL.EFPN.PRESET", "fast"],
}


def measure(opts: list[str], size: int) -> dict[str, float]:
    """Millions of parameters and 10^9 multiply-accumulates of backbone and pyramid."""
    cfg = efpn_d2.get_config(CONFIG)
    cfg.merge_from_list(opts)
    backbone = build_backbone(cfg, ShapeSpec(channels=3)).eval()
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        counts = FlopCountAnalysis(backbone, torch.zeros(1, 3, size, size))
        counts.unsupported_ops_warnings(False).uncalled_modules_warnings(False)
        # fvcore counts one multiply-accumulate as one.
        macs = counts.total()
    parameters = sum(p.numel() for p in backbone.parameters())
    return {"parameters_m": round(parameters / 1e6, 2), "gmacs": round(macs / 1e9, 1)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", type=int, default=800, help="side of the image in pixels")
    args = parser.parse_args()
    logging.getLogger("fvcore").setLevel(logging.ERROR)
    rows: dict[str, Any] = {}
    for name, opts in VARIANTS.items():
        rows[name] = measure(opts, args.size)
        print(f"{name:>24}: {rows[name]}")
    write_json(
        RESULTS, {**collect_run_record(0), "config": CONFIG, "size": args.size, "rows": rows}
    )


if __name__ == "__main__":
    main()
