"""Figures that compare the extended level with its target (paper Fig. 6)."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from torch import Tensor

from efpn_d2.inference.feature_maps import FeatureMapExtractor, FeatureMaps, measure_distance
from efpn_d2.inference.image_figures import Crop, crop_window, image_caption, write_image_figures
from efpn_d2.visualization.channels import REDUCTIONS, reduce_channels
from efpn_d2.visualization.feature_figure import FeatureLine, FeaturePanel, draw_feature_figure

# Of each level: the extended map, the target, and the map that stock FPN has at 1x.
_NAMES = {
    "p2_prime": ("P'2", "FPN P2, 2x image", "FPN P2, 1x image"),
    "p3_prime": ("P'3", "merged P3, 2x image", "merged P3, 1x image"),
}


class ComparisonOptions(NamedTuple):
    """How maps are shown."""

    level: str = "p2_prime"
    reduction: str = "deviation"
    crop: Crop | None = None  # in pixels of the file; None: all
    differences: bool = False  # a second line with the difference of each map to the target


def compare_features(
    extractor: FeatureMapExtractor,
    records: Sequence[dict[str, Any]],
    output: Path,
    options: ComparisonOptions,
) -> list[Path]:
    """Run the models on images and write the figures.

    Args:
        extractor: the models.
        records: see :class:`FeatureMapExtractor`.
        output: a file for one figure of all images, or a folder for one PNG per image.
        options: ``level`` must be the extractor's.

    Returns:
        The files.

    Raises:
        ValueError: an image cannot be read, the crop is not within it, or the output would replace
            an input.
    """
    return write_image_figures(
        records,
        output,
        make_lines=lambda record: comparison_lines(extractor(record), options),
        draw=lambda lines: draw_feature_figure(lines, _note(lines, options)),
    )


def comparison_lines(maps: FeatureMaps, options: ComparisonOptions) -> list[FeatureLine]:
    """What one image contributes to a figure: a line of maps and, if asked for, of differences.

    Raises:
        ValueError: the crop is not within the image, or the reduction is unknown.
    """
    lines = [_feature_line(maps, options)]
    return [*lines, _difference_line(maps, lines[0])] if options.differences else lines


def _feature_line(maps: FeatureMaps, options: ComparisonOptions) -> FeatureLine:
    extended, target, stock = _NAMES[options.level]
    titles = [f"Target: {target}", *(f"{extended}, {label}" for label in maps.extended), stock]
    features = [maps.target, *maps.extended.values(), maps.stock]
    values = reduce_channels([x.numpy() for x in features], options.reduction, maps.target.numpy())
    captions = [_magnitude_text(maps), *(_distance_text(x, maps) for x in features[1:])]
    return FeatureLine(
        panels=[FeaturePanel(*panel) for panel in zip(titles, values, captions, strict=True)],
        scale_label=REDUCTIONS[options.reduction],
        cell=maps.stride,
        size=maps.size,
        boxes=maps.boxes.numpy(),
        image=maps.image,
        caption=image_caption(maps.name, len(maps.boxes)),
        window=crop_window(options.crop, maps.name, maps.file_size, maps.size),
    )


def _difference_line(maps: FeatureMaps, features: FeatureLine) -> FeatureLine:
    """The differences below the maps of a line; they have no image and no target."""
    panels = [
        FeaturePanel("", (x - maps.target).abs().mean(dim=0).numpy(), "difference to the target")
        for x in (*maps.extended.values(), maps.stock)
    ]
    return features._replace(
        panels=[None, *panels],
        scale_label="mean absolute difference",
        image=None,
        caption="",
        colors="magma",
    )


def _distance_text(features: Tensor, maps: FeatureMaps) -> str:
    distance = measure_distance(features, maps)
    text = f"$L_{{glob}}$ {_number(distance.overall)}"
    if distance.on_objects is None:
        return text
    return f"{text}   $L_{{pos}}$ {_number(distance.on_objects)}"


def _magnitude_text(maps: FeatureMaps) -> str:
    """How large the target is, in the measure of the distances: they are those to no map at all."""
    magnitude = measure_distance(maps.target * 0, maps)
    text = f"mean $|F|$ {_number(magnitude.overall)}"
    if magnitude.on_objects is None:
        return text
    return f"{text}, in boxes {_number(magnitude.on_objects)}"


def _number(value: float) -> str:
    return f"{value:#.3g}".rstrip(".")


def _note(lines: Sequence[FeatureLine], options: ComparisonOptions) -> str:
    on_objects = ""
    if any(len(line.boxes) for line in lines):
        on_objects = (
            ", and over those of the cells that ground-truth boxes cover ($L_{pos}$, Eq. 7)"
        )
    return (
        f"Colour: {REDUCTIONS[options.reduction]} (a cell is a vector of channels); one scale per "
        "line, from the 0.5th to the 99.5th percentile of the cells shown. Below the maps: mean "
        f"absolute difference to the target over all elements ($L_{{glob}}$, Eq. 6){on_objects}"
        f"{'; of the whole image' if options.crop else ''}. The map of the 1x image is compared "
        "and drawn after nearest up-sampling x2."
    )
