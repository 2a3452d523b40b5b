"""Figures that compare the extended level with its target [paper Fig. 6]."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from torch import Tensor

from efpn_d2.inspection.channels import REDUCTIONS, reduce_channels
from efpn_d2.inspection.feature_figure import FeatureLine, FeaturePanel, draw_feature_figure
from efpn_d2.inspection.feature_maps import FeatureMapExtractor, FeatureMaps, measure_distance
from efpn_d2.inspection.image_figures import (
    Crop,
    crop_window,
    image_caption,
    write_image_figures,
)

# Labels of each level: the extended features, the target, and stock FPN's features at 1x.
_NAMES = {
    "p2_prime": ("P'2", "FPN P2, 2x image", "FPN P2, 1x image"),
    "p3_prime": ("P'3", "merged P3, 2x image", "merged P3, 1x image"),
}


class ComparisonOptions(NamedTuple):
    """Display options of feature maps."""

    level: str = "p2_prime"
    reduction: str = "deviation"
    crop: Crop | None = None  # in pixels of the file; None: the whole image
    differences: bool = False  # add a row with the difference of each feature map to the target


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
        ValueError: if an image cannot be read, the crop is outside of it, or the output would
            overwrite an input.
    """
    return write_image_figures(
        records,
        output,
        make_lines=lambda record: comparison_lines(extractor(record), options),
        draw=lambda lines: draw_feature_figure(lines, _note(lines, options)),
    )


def comparison_lines(maps: FeatureMaps, options: ComparisonOptions) -> list[FeatureLine]:
    """Build the rows of one image: its feature maps and, optionally, their differences.

    Raises:
        ValueError: if the crop is outside of the image, or the reduction is unknown.
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
    """Build the row of differences, without image and target, below a row of feature maps."""
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
    """Describe the magnitude of the target, i.e. its distance to zero."""
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
        f"Color: {REDUCTIONS[options.reduction]} (a cell is a vector of channels); one scale per "
        "row, from the 0.5th to the 99.5th percentile of the cells shown. Below the maps: mean "
        f"absolute difference to the target over all elements ($L_{{glob}}$, Eq. "
        f"6){on_objects}{('; of the whole image' if options.crop else '')}. The map of the 1x "
        "image is compared and drawn after nearest upsampling x2."
    )
