#!/usr/bin/env python
"""Is dynamic convolution sensitive to high-frequency noise, and does a static guide help?

The same small network is trained to find the synthetic signs with each of three attention blocks:
SGDM, the same without its static guide, and the same with its dynamic part held at zero. Then noise
of a band of frequencies is added to the block's input, its RMS a share of the input's, and the
changes are measured on unseen images: of the attention map (relative to how much the map varies),
of the kernels, of the block's output, and of the average precision of the cells.

All channels are convolved dynamically here (razor ratio 1): those that pass would add the same
noise to all three. Writes benchmarks/results/sgdm_noise.json; minutes on two cores.
"""

import argparse
import statistics
from typing import Any

import numpy as np
import torch
from records import RESULTS
from torch import Tensor, nn
from torch.nn import functional as F

from efpn_d2.data.synthetic.config import SyntheticConfig
from efpn_d2.data.synthetic.layout import plan_layout
from efpn_d2.data.synthetic.scene import annotate, capture, render_scene
from efpn_d2.modeling import StaticGuidedDynamicModule
from efpn_d2.utils.run_record import collect_run_record, timed, write_record
from efpn_d2.utils.tool_support import at_least, positive

VARIANTS = ("guided", "unguided", "static")
# Cycles per cell of the map that the noise is added to; 0.5 is the limit along an axis.
BANDS = {"high": (0.35, 0.71), "low": (0.02, 0.12)}
AMPLITUDES = (0.05, 0.1, 0.2, 0.4)
STRIDE, WIDTH = 4, 32


class SignFinder(nn.Module):
    """Two strided convolutions, the block, two convolutions: the logit of a sign for each cell."""

    def __init__(self, variant: str, seed: int) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.stem = nn.Sequential(
            nn.Conv2d(3, 16, 3, 2, 1), nn.ReLU(), nn.Conv2d(16, WIDTH, 3, 2, 1), nn.ReLU()
        )
        self.head = nn.Sequential(
            nn.Conv2d(WIDTH, WIDTH, 3, padding=1), nn.ReLU(), nn.Conv2d(WIDTH, 1, 1)
        )
        guided = variant != "unguided"
        self.block = StaticGuidedDynamicModule(WIDTH, razor_ratio=1, static_guide=guided)
        if variant == "static":
            self.block.dynamic_conv.generator.requires_grad_(False)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.block(self.stem(x)))


def make_data(split: str, count: int, side: int) -> tuple[Tensor, Tensor]:
    """Images (N, 3, H, W) around 0, and which cells (N, 1, H/4, W/4) a sign covers."""
    config = SyntheticConfig(
        variant="native1x", split=split, student_size=side, min_size=8.0, max_size=side / 4
    )
    images = torch.zeros(count, 3, side, side)
    cells = torch.zeros(count, 1, side // STRIDE, side // STRIDE)
    for i in range(count):
        layout = plan_layout(config, i)
        pixels = capture(config, i, render_scene(config, i, layout))
        images[i] = torch.from_numpy(pixels).permute(2, 0, 1) / 64.0 - 2
        for x, y, w, h in (a["bbox"] for a in annotate(config, layout)):
            x0, y0, x1, y1 = (round(v / STRIDE) for v in (x, y, x + w, y + h))
            cells[i, 0, y0:y1, x0:x1] = 1
    return images, cells


def train(model: SignFinder, images: Tensor, cells: Tensor, steps: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], lr=3e-3)
    weight = (1 - cells.mean()) / cells.mean()
    for _ in range(steps):
        batch = torch.randint(len(images), (8,), generator=generator)
        loss = F.binary_cross_entropy_with_logits(
            model(images[batch]), cells[batch], pos_weight=weight
        )
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


def band_noise(like: Tensor, band: tuple[float, float], seed: int) -> Tensor:
    """Noise of the shape (N, C, H, W) within a band, with each image's RMS."""
    noise = torch.randn(like.shape, generator=torch.Generator().manual_seed(seed))
    rows, columns = torch.fft.fftfreq(like.shape[2]), torch.fft.rfftfreq(like.shape[3])
    radius = torch.hypot(rows[:, None], columns[None])
    spectrum = torch.fft.rfft2(noise) * ((radius >= band[0]) & (radius <= band[1]))
    noise = torch.fft.irfft2(spectrum, s=like.shape[2:])
    return noise * rms(like, (1, 2, 3)) / rms(noise, (1, 2, 3))


def rms(x: Tensor, dims: tuple[int, ...] = (0, 1, 2, 3)) -> Tensor:
    return x.square().mean(dim=dims, keepdim=True).sqrt()


def average_precision(logits: Tensor, cells: Tensor) -> float:
    """Mean precision at the covered cells, in the order of their logits."""
    hits = cells.flatten()[logits.flatten().argsort(descending=True)].double()
    precision = hits.cumsum(0) / torch.arange(1, len(hits) + 1)
    return float((precision * hits).sum() / hits.sum())


@torch.no_grad()
def measure(model: SignFinder, images: Tensor, cells: Tensor, seed: int) -> dict[str, Any]:
    """All changes, by band and amplitude, and what they are relative to."""
    x = model.stem(images)
    block = model.block
    attention, kernels, out = block.attention(x), block.dynamic_conv.kernels(x), block(x)
    clean = average_precision(model.head(out), cells)
    result: dict[str, Any] = {"ap": clean, "attention_std": float(attention.std())}
    for band, limits in BANDS.items():
        noise = band_noise(x, limits, seed)
        for amplitude in AMPLITUDES:
            y = x + amplitude * noise
            changed = block(y)
            result[f"{band} {amplitude}"] = {
                "attention": float(rms(block.attention(y) - attention) / attention.std()),
                "kernels": float(rms(block.dynamic_conv.kernels(y) - kernels) / rms(kernels)),
                "output": float(rms(changed - out) / rms(out)),
                "ap_loss": clean - average_precision(model.head(changed), cells),
            }
    return result


def summarize(values: list[Any]) -> Any:
    """Mean and standard deviation over the seeds, in the same nested form."""
    if isinstance(values[0], dict):
        return {key: summarize([value[key] for value in values]) for key in values[0]}
    return {"mean": round(statistics.mean(values), 4), "std": round(statistics.stdev(values), 4)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=at_least(2), default=5, help="at least 2")
    parser.add_argument("--steps", type=positive, default=300, help="of training")
    parser.add_argument("--images", type=positive, default=200, help="to train on")
    parser.add_argument("--size", type=positive, default=96, help="side of the images in pixels")
    args = parser.parse_args()
    seconds: dict[str, float] = {}
    results: dict[str, list[dict[str, Any]]] = {variant: [] for variant in VARIANTS}
    with timed(seconds, "all"):
        train_data = make_data("train", args.images, args.size)
        val_data = make_data("val", args.images // 4, args.size)
        for seed in range(args.seeds):
            for variant in VARIANTS:
                model = SignFinder(variant, seed)
                train(model, *train_data, args.steps, seed)
                results[variant].append(measure(model, *val_data, seed))
    rows = {variant: summarize(values) for variant, values in results.items()}
    key = f"high {AMPLITUDES[1]}"
    for variant, row in rows.items():
        print(f"{variant:>9}: AP {row['ap']['mean']:.3f}, at '{key}' {row[key]}")
    wins = np.sum(
        [
            g[key]["attention"] < u[key]["attention"]
            for g, u in zip(results["guided"], results["unguided"], strict=True)
        ]
    )
    record = {"options": vars(args), "seconds": seconds, "bands": BANDS, "rows": rows}
    record["seeds_where_guided_changes_less"] = {key: int(wins)}
    write_record(RESULTS / "sgdm_noise.json", {**collect_run_record(0), **record})


if __name__ == "__main__":
    main()
