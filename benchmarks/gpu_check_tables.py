"""Markdown tables of the record of benchmarks/gpu_check.py."""

from typing import Any

from speed_tables import BASELINE, measured

Record = dict[str, Any]
PRECISIONS = {"float32": "fp32", "float16": "fp16", "bfloat16": "bf16"}


def render_gpu_check(record: Record) -> str:
    """What passed, and what was measured: times, memory, training steps, torch.compile."""
    steps = record["steps"]
    results: dict[str, list[Record]] = {}
    for step in steps:
        if "result" in step:
            results.setdefault(step["kind"], []).append(step["result"])
    blocks = [render_outcomes(steps)]
    if "speed" in results:
        blocks += ["Time, of FPN's in the same round:", render_times(results["speed"])]
        if all("memory_gib" in row for x in results["speed"] for row in x["rows"].values()):
            blocks += ["Memory beyond the model, GiB:", render_memory(results["speed"])]
    if "train" in results:
        blocks += [
            "Training steps in mixed precision, on noise:",
            render_training(results["train"]),
        ]
    if "compile" in results:
        blocks += ["The extension compiled, batch 1, fp32:", render_compiled(results["compile"])]
    tf32 = " (convolutions in TF32)" if record["tf32_convolutions"] and on_card(record) else ""
    where = f"{record['backbone']}, {record['size']} px, fp32{tf32} or autocast"
    dry = "A dry run, whose numbers say nothing. " if record["dry_run"] else ""
    return "\n\n".join([*blocks, f"{dry}{where}; {measured(record)}"])


def on_card(record: Record) -> bool:
    return record["device"] != "cpu"


def table(heads: list[str], rows: list[list[str]]) -> str:
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def render_outcomes(steps: list[Record]) -> str:
    """One line for each step."""
    rows = []
    for step in steps:
        reason = step.get("reason", step.get("result", {}).get("summary", "")).replace("|", "\\|")
        outcome = f"{step['outcome']}: {reason}" if reason else step["outcome"]
        rows.append([step["name"], f"{step['seconds']:.0f}", outcome])
    return table(["step", "seconds", "outcome"], rows)


def columns(results: list[Record]) -> list[str]:
    """A head for each run of all detectors."""
    return [f"{PRECISIONS[x['precision']]}, batch {x['batch']}" for x in results]


def render_times(results: list[Record]) -> str:
    """Ratios, with the milliseconds of FPN."""
    rows = []
    for name in results[0]["rows"]:
        cells = []
        for result in results:
            row = result["rows"][name]
            own = f" ({1000 * row['seconds']:.1f} ms)" if name == BASELINE else ""
            cells.append(f"{row['ratio']:.2f}{own}")
        rows.append([name, *cells])
    return table(["", *columns(results)], rows)


def render_memory(results: list[Record]) -> str:
    rows = [
        [name, *(f"{x['rows'][name]['memory_gib']:.2f}" for x in results)]
        for name in results[0]["rows"]
    ]
    return table(["", *columns(results)], rows)


def render_training(results: list[Record]) -> str:
    """Overflows are steps that the loss scale leaves out."""
    rows = []
    for x in results:
        first, last = x["losses"]
        cells = [x["recipe"], PRECISIONS[x["precision"]], f"{first:.2f} to {last:.2f}"]
        cells += [f"{x['overflows']} of {x['steps']}"]
        cells += [f"{len(x['zero_gradients'])} of {x['parameters']}"]
        rows.append([*cells, f"{x['step_seconds']:.2f}"])
    heads = ["recipe", "in", "loss", "overflows", "gradients of zero", "seconds a step"]
    return table(heads, rows)


def render_compiled(results: list[Record]) -> str:
    rows = []
    for x in results:
        row = x["rows"]["compiled"]
        low, high = row["ratio_quartiles"]
        cells = [x["detector"], f"{row['ratio']:.2f}", f"{low:.2f}-{high:.2f}"]
        rows.append([*cells, f"{x['first_call_seconds']:.0f}", f"{x['difference']:.1e}"])
    return table(["", "time, of the plain", "quartiles", "s to compile", "difference"], rows)
