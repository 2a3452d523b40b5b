"""Tables of benchmarks/level_gradients.py and sgdm_noise.py."""

from records import Record

from rendering.markdown import commit_of, table

MISSING = "–"
NOISE = "high 0.1"
BLOCKS = {
    "guided": "SGDM",
    "unguided": "without the static guide",
    "static": "its dynamic part held at zero",
}
_SAMPLED = (
    ("of the sampled positive anchors", "share", "positive_anchors"),
    ("of all sampled anchors", "share", "sampled_anchors"),
    ("of the pooled boxes", "share", "rois"),
    ("images without a sampled positive anchor of it", "images_without", "positive_anchors"),
    ("images of which no sampled anchor or pooled box reads it", "images_without", "unread"),
)


def render_levels(record: Record) -> str:
    """Which level is sampled, and where the gradient is: ``benchmarks/level_gradients.py``."""
    return "\n\n".join([_samples(record), _gradients(record), _source(record)])


def _samples(record: Record) -> str:
    """Samples of stock FPN with the trained base, for each set of objects."""
    images = record["batches"] * record["images_per_batch"]
    rows = [r for r in record["rows"] if (r["weights"], r["pyramid"]) == ("trained", "FPN")]
    levels = list(rows[0]["levels"])
    lines = []
    for row in rows:
        size = f"{record['min_object_size']:g} to {row['max_object_size']:g} px"
        for title, kind, name in _SAMPLED:
            values = [row["levels"][level][kind][name] for level in levels]
            lines.append([size, title, *map(_percent, values)])
    heads = ["objects", "", *map(str.upper, levels)]
    return f"Samples of {images} images of the training set, in %:\n\n{table(heads, lines)}"


def _gradients(record: Record) -> str:
    """Shares of the gradient norm, FPN and FPN with CEM one below the other."""
    rows, batches = record["rows"], record["batches"]
    *_, last = rows[0]["levels"]
    with_conv = [x for x in rows[0]["levels"] if _gradient(rows[0], x, "output_conv") is not None]
    top = with_conv[-1]
    heads = [
        *(f"output conv. {x.upper()}" for x in with_conv),
        *(f"map {x.upper()}" for x in (top, last)),
        f"lateral conv. {top.upper()}",
        f"output conv. {top.upper()}, CEM : FPN",
        "batches in which it is zero",
    ]
    columns = [*((x, "output_conv") for x in with_conv), (top, "map"), (last, "map")]
    columns.append((top, "lateral_conv"))
    lines = []
    for stock, cem in zip(rows[::2], rows[1::2], strict=True):
        for row in (stock, cem):
            norms = [_gradient(r, top, "output_conv") for r in (row, stock)]
            zero = row["levels"][top]["zero_output_conv_gradient"] * batches
            cells = [
                f"{record['min_object_size']:g} to {row['max_object_size']:g} px",
                _weights(row["weights"], record),
                row["pyramid"],
                *(_percent(row["levels"][x]["share"][name]) for x, name in columns),
                f"{norms[0] / norms[1]:.3g} x" if row is cem and norms[1] else MISSING,
                f"{round(zero)} of {batches}",
            ]
            lines.append(cells)
    title = "Gradient norm (mean of the batches), in % of the sum over the levels:"
    return f"{title}\n\n{table(['objects', 'weights', 'pyramid', *heads], lines)}"


def _gradient(row: Record, level: str, name: str) -> float | None:
    return row["levels"][level]["gradient_norm"][name]


def _weights(label: str, record: Record) -> str:
    iterations = record["base"]["iterations"]
    return {
        "new": "new",
        "trained": f"base of {iterations} iterations; CEM new",
        "finetuned": f"the base, then {record['finetune']['iterations']} iterations of each",
    }[label]


def _source(record: Record) -> str:
    return (
        f"(`benchmarks/level_gradients.py`, protocol {record['protocol']}, {record['batches']} "
        f"batches of {record['images_per_batch']} images, seed {record['seed']}, commit "
        f"{commit_of(record)}. The base learned objects of up to "
        f"{record['base']['max_object_size']:g} px. P6 is subsampled from P5, so all that reads P6 "
        "also reads P5's output convolution.)"
    )


def render_noise(record: Record) -> str:
    """What noise changes in the three blocks of ``benchmarks/sgdm_noise.py``."""
    share = float(NOISE.split()[1])
    seeds = record["options"]["seeds"]
    (wins,) = record["seeds_where_guided_changes_less"].values()
    lines = []
    for name, title in BLOCKS.items():
        changes = record["rows"][name][NOISE]
        values = [changes[x] for x in ("attention", "kernels", "output", "ap_loss")]
        lines.append([title, *(f"{100 * x['mean']:.2f} ± {100 * x['std']:.2f}" for x in values)])
    heads = [
        "block",
        "change of the attention map, in % of its standard deviation",
        "change of the kernels, %",
        "change of the output, %",
        "loss of the cells' average precision, points",
    ]
    return (
        f"Noise of {100 * share:g} % of the features' RMS, of {record['bands']['high'][0]:g} "
        f"cycles per cell and more; mean ± standard deviation of {seeds} seeds:\n\n"
        f"{table(heads, lines)}\n\n"
        f"The attention map changes less with the guide than without in {wins} of {seeds} seeds."
    )


def _percent(value: float | None) -> str:
    """Two digits, and never 0 for what is not."""
    if value is None:
        return MISSING
    if value == 0:
        return "0"
    percent = 100 * value
    return f"{percent:#.2g}" if percent < 9.95 else f"{percent:.1f}"
