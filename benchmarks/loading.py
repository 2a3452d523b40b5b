#!/usr/bin/env python
"""How long training waits for its data, and how fast the loader is by itself.

Trains some iterations of a config and compares the time that the trainer waited for batches with
the whole, then takes as many batches from a loader with nothing else to do. Writes a record in
benchmarks/results.

    benchmarks/loading.py --config Synthetic/ablation_tiny_R_18_EFPN.yaml --name loading_cpu
"""

import argparse
import statistics
import tempfile
import time
from typing import Any

import torch
from detectron2.config import CfgNode
from records import RESULTS

import efpn_d2
from efpn_d2.data.datasets import register_datasets
from efpn_d2.engine import EFPNTrainer
from efpn_d2.utils.run_record import collect_run_record, write_record
from efpn_d2.utils.tool_support import not_negative, positive


def make_config(args: argparse.Namespace, output: str) -> CfgNode:
    """The config, without an evaluation and for just these iterations."""
    cfg = efpn_d2.get_config(args.config)
    options = ["SOLVER.MAX_ITER", args.warmup + args.iterations, "SOLVER.STEPS", ()]
    options += ["TEST.EVAL_PERIOD", 0, "DATASETS.TEST", (), "MODEL.DEVICE", args.device]
    cfg.merge_from_list([*options, "OUTPUT_DIR", output, "SEED", 0, *args.opts])
    return cfg


def time_training(cfg: CfgNode, warmup: int) -> dict[str, float]:
    """Median seconds of an iteration, and of the wait for its batch."""
    trainer = EFPNTrainer(cfg)
    trainer.train()
    waits = [v for v, i in trainer.storage.history("data_time").values() if i >= warmup]
    whole = [v for v, i in trainer.storage.history("time").values() if i >= warmup]
    return {
        "iteration_seconds": round(statistics.median(whole), 4),
        "waiting_seconds": round(statistics.median(waits), 4),
        "waiting_share": round(sum(waits) / sum(whole), 4),
    }


def time_loader(cfg: CfgNode, batches: int, warmup: int) -> float:
    """Seconds of a batch where nothing else is to be done."""
    loader = iter(EFPNTrainer.build_train_loader(cfg))
    for _ in range(warmup):
        next(loader)
    start = time.perf_counter()
    for _ in range(batches):
        next(loader)
    return round((time.perf_counter() - start) / batches, 4)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--config", default="Synthetic/ablation_tiny_R_18_EFPN.yaml")
    parser.add_argument("--iterations", type=positive, default=100)
    parser.add_argument("--warmup", type=not_negative, default=20, help="that do not count")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=positive, default=torch.get_num_threads())
    parser.add_argument("--name", default="loading_cpu", help="of the record")
    parser.add_argument("--opts", nargs="+", default=[], metavar="KEY VALUE")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    with tempfile.TemporaryDirectory() as output:
        cfg = make_config(args, output)
        register_datasets(cfg)
        row: dict[str, Any] = time_training(cfg, args.warmup)
    row["loader_seconds"] = time_loader(cfg, args.iterations, args.warmup)
    print(
        f"an iteration takes {row['iteration_seconds']} s, of which training waits "
        f"{row['waiting_seconds']} s ({100 * row['waiting_share']:.1f} % of all) for its batch; "
        f"the loader by itself takes {row['loader_seconds']} s for one"
    )
    setup = {name: getattr(args, name) for name in ("config", "opts", "device", "threads")}
    setup.update(workers=cfg.DATALOADER.NUM_WORKERS, images_per_batch=cfg.SOLVER.IMS_PER_BATCH)
    write_record(RESULTS / f"{args.name}.json", {**collect_run_record(0), **setup, **row})


if __name__ == "__main__":
    main()
