#!/usr/bin/env python
"""AP by object size with lazy P'2 against the dense one, of a trained detector.

With all proposals both must be equal. Where some are left out, because the RPN queries P'2
(MODEL.EFPN.LAZY_QUERY_THRESHOLD) or small ones need some objectness (LAZY_MIN_OBJECTNESS), the loss
is measured, beside the share of P'2 that is computed. Writes a record in benchmarks/results.

    benchmarks/lazy_accuracy.py --config-file run/config.yaml --weights run/model_final.pth \\
        --name lazy_accuracy
"""

import argparse
from pathlib import Path
from typing import Any

from detectron2.utils.logger import setup_logger
from records import RESULTS
from shares import shares_computed

from efpn_d2.checkpoint import EFPNCheckpointer
from efpn_d2.data.datasets import register_datasets
from efpn_d2.engine import EFPNTrainer
from efpn_d2.inference.predictor import load_inference_config
from efpn_d2.utils.run_record import collect_run_record, write_record
from efpn_d2.utils.tool_support import positive

DEFAULT_THRESHOLDS = (0.0, 0.003, 0.01, 0.03, 0.1, 0.3)
DEFAULT_OBJECTNESS = (0.0, 0.003, 0.01, 0.03, 0.1, 0.3)


def evaluate(args: argparse.Namespace, *opts: Any) -> dict[str, Any]:
    """Metrics of the detector with some options, and the mean share of P'2 computed."""
    options = ["MODEL.DEVICE", args.device, "MODEL.WEIGHTS", args.weights]
    options += ["OUTPUT_DIR", str(args.output), *map(str, opts)]
    cfg = load_inference_config(args.config_file, options)
    register_datasets(cfg)
    model = EFPNTrainer.build_model(cfg)
    EFPNCheckpointer(model).load(cfg.MODEL.WEIGHTS)
    shares: list[float] = []
    with shares_computed(shares):
        metrics = EFPNTrainer.test(cfg, model)
    numbers = {k: v for k, v in metrics["bbox"].items() if isinstance(v, int | float)}
    return {"bbox": numbers, "share": sum(shares) / len(shares) if shares else 1.0}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--config-file", required=True)
    parser.add_argument("--weights", required=True)
    parser.add_argument(
        "--thresholds", nargs="+", type=float, default=DEFAULT_THRESHOLDS,
        help="of the RPN's query and of small proposals, where the RPN reads P'2; 0.0: everywhere",
    )  # fmt: skip
    parser.add_argument(
        "--min-objectness", nargs="+", type=float, default=DEFAULT_OBJECTNESS,
        help="of small proposals; 0.0: all that the detector keeps",
    )  # fmt: skip
    parser.add_argument("--tile-sides", nargs="+", type=positive, default=[8])
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--output", type=Path, default=Path("output/lazy_accuracy"))
    parser.add_argument("--name", default="lazy_accuracy", help="of the record")
    args = parser.parse_args()
    setup_logger(name="efpn_d2")
    lazy = ["MODEL.EFPN.LAZY", True, "MODEL.EFPN.LAZY_TILE_SIDES", args.tile_sides]
    # Tiles also where they save nothing: what is compared is what they find.
    lazy += ["MODEL.EFPN.LAZY_DENSE_ABOVE", 1e6]
    rows = {"dense": evaluate(args)}
    reads_all = load_inference_config(args.config_file).MODEL.EFPN.RPN_ON_P2_PRIME
    if reads_all:
        for threshold in args.thresholds:
            # P'2 is spared only where neither the RPN nor a head reads it.
            options = [*lazy, "MODEL.EFPN.LAZY_QUERY_THRESHOLD", threshold]
            options += ["MODEL.EFPN.LAZY_MIN_OBJECTNESS", threshold]
            rows[f"lazy, query and objectness from {threshold:g}"] = evaluate(args, *options)
    else:
        for objectness in args.min_objectness:
            options = [*lazy, "MODEL.EFPN.LAZY_MIN_OBJECTNESS", objectness]
            rows[f"lazy, objectness from {objectness:g}"] = evaluate(args, *options)
    for name, row in rows.items():
        sizes = {k: round(v, 2) for k, v in row["bbox"].items() if k.startswith("AP_")}
        print(f"{name:>37}: AP {row['bbox']['AP']:.2f}, {sizes}, share {row['share']:.3f}")
    setup = {"tile_sides": args.tile_sides, "device": args.device, "rows": rows}
    write_record(RESULTS / f"{args.name}.json", {**collect_run_record(0), **setup})


if __name__ == "__main__":
    main()
