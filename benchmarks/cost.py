#!/usr/bin/env python
"""Parameters and multiply-accumulates of the pyramid, FPN against EFPN, and of inserted blocks.

Writes benchmarks/results/cost.json, of which docs/speed.md has a table. For another config:

    benchmarks/cost.py --config Synthetic/ablation_small_R_18_EFPN.yaml --size 96 --name cost_small
"""

import argparse
import logging
import warnings
from typing import Any

import torch
from fvcore.nn import FlopCountAnalysis
from pyramids import PYRAMIDS, Pyramid, build_pyramid
from records import RESULTS
from torch import nn

from efpn_d2.modeling import (
    ContextEnhancementModule,
    ForegroundBackgroundSeparationModule,
    StaticGuidedDynamicModule,
)
from efpn_d2.utils.run_record import collect_run_record, write_record
from efpn_d2.utils.tool_support import positive

CONFIG = "COCO-Detection/faster_rcnn_R_50_EFPN_1x.yaml"
# What is counted by itself too.
INSERTED = (
    ContextEnhancementModule,
    ForegroundBackgroundSeparationModule,
    StaticGuidedDynamicModule,
)


def measure(config: str, pyramid: Pyramid, size: int) -> dict[str, Any]:
    """Millions of parameters and 10^9 multiply-accumulates of backbone and pyramid.

    Where something is inserted, "blocks" has the thousands and millions of each inserted block,
    over all maps that it runs on (that after res2 runs on C'2 too).
    """
    backbone = build_pyramid(config, pyramid)
    side = pyramid.scale * size
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        counts = FlopCountAnalysis(backbone, torch.zeros(1, 3, side, side))
        counts.unsupported_ops_warnings(False).uncalled_modules_warnings(False)
        # fvcore counts one multiply-accumulate as one.
        macs = counts.by_module()
    row = {"parameters_m": round(count(backbone) / 1e6, 2), "gmacs": round(macs[""] / 1e9, 2)}
    blocks = {
        name: {"parameters_k": round(count(block) / 1e3, 1), "mmacs": round(macs[name] / 1e6, 1)}
        for name, block in backbone.named_modules()
        if isinstance(block, INSERTED)
    }
    return {**row, "blocks": blocks} if blocks else row


def count(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", type=positive, default=800, help="side of the image in pixels")
    parser.add_argument("--config", default=CONFIG, help="a packaged config")
    parser.add_argument("--name", default="cost", help="of the record in benchmarks/results")
    args = parser.parse_args()
    logging.getLogger("fvcore").setLevel(logging.ERROR)
    rows: dict[str, Any] = {}
    for name, pyramid in PYRAMIDS.items():
        rows[name] = measure(args.config, pyramid, args.size)
        blocks = rows[name].get("blocks", {})
        print(f"{name:>42}: {rows[name]['parameters_m']} M, {rows[name]['gmacs']} GMACs")
        for block, row in blocks.items():
            print(f"{block:>42}: {row['parameters_k']} k, {row['mmacs']} MMACs")
    record = {"config": args.config, "size": args.size, "rows": rows}
    write_record(RESULTS / f"{args.name}.json", {**collect_run_record(0), **record})


if __name__ == "__main__":
    main()
