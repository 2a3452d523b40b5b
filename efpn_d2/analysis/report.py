"""An analysis as text: tables to read, and settings to paste."""

import textwrap

import numpy as np
import yaml
from tabulate import tabulate

from efpn_d2.analysis.analyze import DatasetAnalysis
from efpn_d2.analysis.anchors import AnchorLevel

_QUANTILES = (0.01, 0.1, 0.25, 0.5, 0.75, 0.9, 0.99)


def format_analysis(analysis: DatasetAnalysis) -> str:
    """All findings and recommendations, in paragraphs and tables."""
    parts = (_data, _sizes, _read_levels, _anchors, _anchor_sizes, _recommendations)
    return "\n\n".join(text for text in (part(analysis) for part in parts) if text)


def format_settings(analysis: DatasetAnalysis) -> str:
    """The recommended settings as YAML that merges onto the config."""
    scale = analysis.scale
    lines = [
        f"# For {analysis.name} at INPUT.MIN_SIZE_TEST {analysis.cfg.INPUT.MIN_SIZE_TEST}, "
        f"INPUT.MAX_SIZE_TEST {analysis.cfg.INPUT.MAX_SIZE_TEST}.",
    ]
    if scale.factor > 1:
        lines.append(
            f"# INPUT.MIN_SIZE_TEST {scale.min_size} would be better for small objects, with other "
            "anchors: analyse anew at it."
        )
    for name, constants in analysis.similarity_constants()[1]._asdict().items():
        lines.append(
            f"# With MODEL.EFPN.SIMILARITY {name}: MODEL.EFPN.SIMILARITY_CONSTANTS {constants}."
        )
    content = yaml.safe_dump({"VERSION": 2, **analysis.settings}, default_flow_style=None)
    return "\n".join([*lines, content])


def octave_edges(sizes: np.ndarray) -> list[float]:
    """Powers of two that enclose the sizes, as edges of bins."""
    low, high = np.log2([max(sizes.min(), 1.0), sizes.max()])
    return [2.0**i for i in range(int(np.floor(low)), int(np.floor(high)) + 2)]


def _table(rows: list[list[str]], header: list[str]) -> str:
    columns = ("left", *["right"] * (len(header) - 1))
    return tabulate(rows, header, colalign=columns, disable_numparse=True)


def _data(analysis: DatasetAnalysis) -> str:
    objects, cfg = analysis.objects, analysis.cfg
    heights, widths = objects.image_sizes.T
    left_out = ", ".join(f"{count} {why}" for why, count in objects.left_out.items() if count)
    per_image = objects.objects_per_image
    lines = [
        f"{analysis.name}: {len(objects.image_sizes)} images, {len(objects.boxes)} objects"
        + (f" (left out: {left_out})" if left_out else ""),
        f"Objects per image: median {np.median(per_image):.0f}, 99 % of the images at most "
        f"{np.quantile(per_image, 0.99):.0f}, maximum {per_image.max()}; "
        f"{(per_image == 0).sum()} images without",
        f"Input: INPUT.MIN_SIZE_TEST {cfg.INPUT.MIN_SIZE_TEST}, MAX_SIZE_TEST "
        f"{cfg.INPUT.MAX_SIZE_TEST}; heights {_range(heights)}, widths {_range(widths)}, "
        f"scaled by {np.median(objects.scales):.3g} (median)",
    ]
    return "\n".join(lines)


def _range(values: np.ndarray) -> str:
    low, high = values.min(), values.max()
    return f"{low:.0f}" if low == high else f"{low:.0f} to {high:.0f}"


def _sizes(analysis: DatasetAnalysis) -> str:
    objects = analysis.objects
    sides = objects.boxes[:, 2:] - objects.boxes[:, :2]
    rows = [
        ["size at the input, px", *np.quantile(objects.sizes, _QUANTILES)],
        ["size in the file, px", *np.quantile(objects.file_sizes, _QUANTILES)],
        ["height / width", *np.quantile(sides[:, 1] / sides[:, 0], _QUANTILES)],
    ]
    header = ["quantiles; size: sqrt(w h)", *(f"{q:.0%}" for q in _QUANTILES)]
    return _table([[a, *(f"{x:.3g}" for x in values)] for a, *values in rows], header)


def _read_levels(analysis: DatasetAnalysis) -> str:
    now, advised = analysis.geometry, analysis.advised_geometry
    if not now.read_levels:
        return ""
    counts = [
        np.bincount(g.assign_levels(analysis.objects.boxes), minlength=len(g.read_levels))
        for g in (now, advised)
    ]
    total = len(analysis.objects.boxes)
    rows = [
        [name, count, f"{count / total:.1%}", f"{after / total:.1%}"]
        for name, count, after in zip(now.read_levels, *counts, strict=True)
    ]
    rule = f", p2_prime below {now.small_box_size:g} px" if now.small_box_size else ""
    title = f"Levels that the heads read objects from (Detectron2's assignment{rule}):"
    return f"{title}\n{_table(rows, ['level', 'objects', 'share', 'advised'])}"


def _anchors(analysis: DatasetAnalysis) -> str:
    low, high = analysis.geometry.thresholds
    sizes = analysis.objects.sizes
    edges = octave_edges(sizes)
    rows = []
    for start, end in zip(edges[:-1], edges[1:], strict=True):
        inside = (sizes >= start) & (sizes < end)
        if inside.any():
            rows.append([f"{start:g} to {end:g} px", *_anchor_row(analysis, inside)])
    rows.append(["all", *_anchor_row(analysis, np.ones(len(sizes), bool))])
    header = ["size", "objects"]
    for name in (f"IoU >= {high:g}", f"IoU >= {low:g}", "mean IoU", "anchors"):
        header += [name, "advised"]
    title = (
        f"Ceiling of the anchors: objects with an anchor of IoU {high:g}, from which it is trained "
        f"as an object, or {low:g},\nbelow which it is background; mean IoU of the best anchor; "
        f"anchors of IoU {high:g} per object.\nIn training an object's best anchor is always "
        "trained as an object, however low its IoU."
    )
    return f"{title}\n{_table(rows, header)}"


def _anchor_row(analysis: DatasetAnalysis, inside: np.ndarray) -> list[str]:
    now, advised = analysis.overlaps, analysis.advised_overlaps
    low, high = analysis.geometry.thresholds
    row = [str(inside.sum())]
    for threshold in (high, low):
        row += [f"{(x.best[inside] >= threshold).mean():.1%}" for x in (now, advised)]
    row += [f"{x.best[inside].mean():.2f}" for x in (now, advised)]
    return row + [f"{x.counts[inside].mean():.1f}" for x in (now, advised)]


def _anchor_sizes(analysis: DatasetAnalysis) -> str:
    now, advised = analysis.geometry.anchors, analysis.advised_geometry.anchors
    total = len(analysis.objects.boxes)
    shares = [
        np.bincount(x.level, minlength=len(now)) / total
        for x in (analysis.overlaps, analysis.advised_overlaps)
    ]
    rows = [
        [a.name, a.stride, _level_sizes(a), f"{x:.1%}", _level_sizes(b), f"{y:.1%}"]
        for a, b, x, y in zip(now, advised, *shares, strict=True)
    ]
    header = ["level", "stride", "sizes", "best of", "advised sizes", "best of"]
    title = "Anchors, and the share of objects whose best anchor is on the level:"
    return f"{title}\n{_table(rows, header)}"


def _level_sizes(level: AnchorLevel) -> str:
    sides = level.boxes[:, 2:] - level.boxes[:, :2]
    sizes = np.unique(np.sqrt(sides.prod(axis=1)).round(1))
    return ", ".join(f"{size:g}" for size in sizes)


def _recommendations(analysis: DatasetAnalysis) -> str:
    items = [
        *_scale_items(analysis),
        _anchor_item(analysis),
        *_routing_items(analysis),
        *_detection_items(analysis),
        _similarity_item(analysis),
    ]
    return "\n".join(["Recommended:", *(_item(text) for text in items)])


def _anchor_item(analysis: DatasetAnalysis) -> str:
    low, high = analysis.geometry.thresholds
    now, then = analysis.anchor_scores()
    score = (
        f"the share of objects with an anchor of IoU {low:g} plus the mean IoU, up to {high:g}, of "
        "all with their best anchor, where an octave of sizes counts by the root of its number of "
        "objects"
    )
    if analysis.keeps_anchors:
        return (
            "MODEL.ANCHOR_GENERATOR.SIZES as they are: the search over sizes in quarter octaves "
            f"found none with more of {score}: {now:.3f}."
        )
    return (
        "MODEL.ANCHOR_GENERATOR.SIZES as above: coordinate ascent over sizes in quarter octaves on "
        f"{score}: {now:.3f} now, {then:.3f} then."
    )


def _item(text: str) -> str:
    return textwrap.fill(
        text, 100, initial_indent="- ", subsequent_indent="  ", break_on_hyphens=False
    )


def _scale_items(analysis: DatasetAnalysis) -> list[str]:
    scale, cfg = analysis.scale, analysis.cfg
    high = analysis.geometry.thresholds[1]
    finest = min(level.stride for level in analysis.geometry.anchors)
    need = (
        f"anchors of its size and shape on stride {finest:g}, the finest, reach IoU {high:g} with "
        f"an object of {scale.needed:.1f} px or more wherever it lies; nine of ten objects have "
        f"{scale.smallest:.1f} px or more now"
    )
    if scale.factor == 1:
        limit = "; but it is twice the files' own pixels already" if scale.capped else ""
        return [f"INPUT.MIN_SIZE_TEST {cfg.INPUT.MIN_SIZE_TEST}, as it is: {need}{limit}."]
    limit = "; the limit is twice the files' own pixels" if scale.capped else ""
    return [
        f"INPUT.MIN_SIZE_TEST {scale.min_size}, MAX_SIZE_TEST {scale.max_size} and as much in "
        f"training (now {cfg.INPUT.MIN_SIZE_TEST}): {need}{limit}. It costs {scale.factor**2:.1f} "
        "times the computation. All other settings here are for the present scale: analyse anew "
        f"with --opts INPUT.MIN_SIZE_TEST {scale.min_size} INPUT.MAX_SIZE_TEST {scale.max_size}."
    ]


def _routing_items(analysis: DatasetAnalysis) -> list[str]:
    now, advised = analysis.geometry.small_box_size, analysis.advised_geometry.small_box_size
    if not now:
        return []
    return [
        f"MODEL.EFPN.SMALL_BOX_SIZE {advised:g} (now {now:g}): 56 px by the paper's Eq. 2 with "
        "minimum level 1, moved so that each head has at least a fifth of the objects."
    ]


def _detection_items(analysis: DatasetAnalysis) -> list[str]:
    detections = analysis.settings["TEST"]["DETECTIONS_PER_IMAGE"]
    items = [
        f"TEST.DETECTIONS_PER_IMAGE {detections} (now {analysis.cfg.TEST.DETECTIONS_PER_IMAGE}): "
        "COCO's 100, or more for all objects of the fullest image and for twice those of 99 % of "
        "the images."
    ]
    if "RPN" in analysis.settings["MODEL"]:
        proposals = analysis.settings["MODEL"]["RPN"]["POST_NMS_TOPK_TEST"]
        items.append(f"MODEL.RPN.POST_NMS_TOPK_TEST {proposals}: twice as many proposals.")
    return items


def _similarity_item(analysis: DatasetAnalysis) -> str:
    now, then = analysis.similarity_constants()
    return (
        "MODEL.EFPN.SIMILARITY_CONSTANTS, if anchors are to be assigned by another MODEL.EFPN."
        f"SIMILARITY than iou: {now.nwd} for nwd, the mean size of the objects in px; {then.simd} "
        f"for simd, the mean distance of object and anchor in sums of their sides, with the "
        f"anchors as recommended (now {now.simd})."
    )
