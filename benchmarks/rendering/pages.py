"""The blocks of README.md and docs/ that come from records."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial

from equal_cost import SLIM, SPEED, WIDE, make_points
from records import RESULTS, Record, load_records, read_record

from rendering.cost_table import render_cost
from rendering.equal_cost_table import multiple
from rendering.evaluation_table import render_evaluation
from rendering.mapping_tables import render_levels, render_noise
from rendering.markdown import mean_and_spread, table
from rendering.speed_tables import render_speed

# The detectors of the comparison at equal cost that the README shows, and what it calls them.
SUMMARY = {
    "FPN 1x": "FPN",
    "FPN + SGDM 1x": "FPN + SGDM",
    SLIM: "EFPN slim",
    WIDE: "EFPN paper + SGDM, P'2 in the RPN",
    "EFPN, the paper's recipe": "EFPN, the paper's recipe",
    "FPN 2x": "FPN on images of twice the side",
}


def render_summary() -> str:
    """AP of the tiny protocol beside CPU time, from the records of both."""
    points = make_points(load_records(), "tiny", "native1x", read_record(SPEED))
    lines = []
    for name in SUMMARY:
        point = points[name]
        cells = [mean_and_spread(list(point.values(x).values())) for x in ("AP_0_16", "AP_16_inf")]
        lines.append([SUMMARY[name], *cells, multiple(point.time), multiple(point.memory)])
    heads = ["", "AP, objects below 16 px", "AP, 16 px and more"]
    heads += ["CPU time, relative to FPN", "memory, relative to FPN"]
    return (
        f"{table(heads, lines)}\n\n"
        "AP: synthetic images, ResNet-18 trained from scratch, the same number of iterations for "
        "all; mean and standard deviation over the seeds. Time and memory: the same detectors with "
        "ResNet-50 on an image of 800 px. EFPN slim has SGDM and proposals on P'2."
    )


def render_demo(names: Sequence[str]) -> str:
    """The block about ``make demo``, from the ``results.json`` that it wrote on each machine."""
    records = [read_record(name) for name in names]
    lines = []
    for record in records:
        machine, own = record["hardware"], record["metrics"]
        device = ", ".join(map(str, machine["gpus"])) or f"{machine['cpu']}, no GPU"
        cells = [f"{device}, {machine['cpu_cores']} cores"]
        cells += [f"{own[key]:.1f}" for key in ("AP50", "AP_0_8", "AP_8_16")]
        lines.append([*cells, f"{sum(record['seconds'].values()) / 60:.1f}"])
    heads = ["on", "AP50", "AP, 0 to 8 px", "AP, 8 to 16 px", "minutes"]
    return (
        f"Expected results of `make demo` on {records[0]['val_images']} unseen images; rounding "
        "differs between CPUs. The command prints the paths of the image sheet and of all "
        "numbers.\n\n"
        f"{table(heads, lines)}"
    )


def _of(name: str, render: Callable[[Record], str]) -> str:
    return render(read_record(name))


def _demos() -> str:
    return render_demo([f"demo/{x.stem}" for x in sorted((RESULTS / "demo").glob("*.json"))])


# Of each page the blocks by name, and what makes them.
PAGES: dict[str, dict[str, Callable[[], str]]] = {
    "README.md": {"demo": _demos, "summary": render_summary},
    "docs/speed.md": {
        "cost": partial(_of, "cost", render_cost),
        SPEED: partial(_of, SPEED, render_speed),
    },
    "docs/paper_mapping.md": {
        "level_gradients": partial(_of, "level_gradients", render_levels),
        "sgdm_noise": partial(_of, "sgdm_noise", render_noise),
    },
    "docs/evaluation.md": {
        "evaluation_speed": partial(_of, "evaluation_speed", render_evaluation),
    },
}


def fill_blocks(text: str, blocks: Mapping[str, Callable[[], str]]) -> str:
    """A page with what stands between the comments ``NAME:begin`` and ``NAME:end`` made anew.

    Raises:
        ValueError: the comments of a block are not there.
    """
    for name, render in blocks.items():
        begin, end = f"<!-- {name}:begin -->", f"<!-- {name}:end -->"
        if begin not in text or end not in text:
            raise ValueError(f"The page needs the lines '{begin}' and '{end}' around that block.")
        head, rest = text.split(begin, 1)
        text = f"{head}{begin}\n{render()}\n{end}{rest.split(end, 1)[1]}"
    return text
