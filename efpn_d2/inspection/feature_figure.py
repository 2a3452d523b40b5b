"""Draw an image and its feature maps side by side, with one color scale per row."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from efpn_d2.visualization.figures import keep_end, wrap_text

if TYPE_CHECKING:  # imported lazily
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.image import AxesImage


# Lengths in inches.
_PANEL_WIDTH, _MIN_HEIGHT = 1.9, 1.1  # panels that would be lower are made wider
_GAP, _MARGIN = 0.1, 0.12
_CAPTION, _LINE_GAP, _TEXT_LINE = 0.2, 0.1, 0.15
_BAR_WIDTH, _BAR_SPACE = 0.1, 0.72

_TITLE_SIZE, _TEXT_SIZE, _TICK_SIZE = 8.5, 7.5, 7.0  # points
_BOX_LINE, _BOX_EDGE = 0.9, 0.5  # points: line of a box, and the dark edge on both sides
_LUMA = np.array([0.299, 0.587, 0.114])  # weights of red, green and blue in gray
_CONTRAST = 0.75  # range of an image below maps: black would darken their colors
_BENEATH = "0.6"  # gray below the color bar: about that of an image
_CLIPPED = 0.5  # percent of the values beyond each end of the scale


class FeaturePanel(NamedTuple):
    """A feature map with the text above and below it."""

    title: str
    values: np.ndarray  # (h, w)
    caption: str = ""
    cell: int | None = None  # pixels per cell; None: that of the row


class FeatureLine(NamedTuple):
    """A row of panels that share a color scale; positions in pixels of the network's input."""

    panels: Sequence[FeaturePanel | None]  # None leaves its place empty
    scale_label: str
    cell: int  # pixels per cell of the maps
    size: tuple[float, float]  # width and height of the image
    boxes: np.ndarray  # (G, 4) XYXY
    image: np.ndarray | None = None  # (H, W, 3) uint8 RGB at any scale; None leaves its place empty
    caption: str = ""  # below the image
    window: tuple[float, float, float, float] | None = None  # XYXY of the visible part; None: all
    colors: str = "viridis"  # name of a Matplotlib color map
    limits: tuple[float, float] | None = None  # color limits; None: from visible cells
    opacity: float = 1.0  # opacity of the maps; below 1 the gray image is visible below them
    box_scale: float = 1.0  # multiplies the line width of boxes

    @property
    def shown(self) -> tuple[float, float, float, float]:
        """XYXY of the visible part of the image."""
        return self.window or (0.0, 0.0, *self.size)


def color_limits(line: FeatureLine) -> tuple[float, float]:
    """Return the limits of a row's color scale.

    These are the row's own limits, or the 0.5th and the 99.5th percentile of the visible cells of
    all its panels.
    """
    if line.limits:
        return line.limits
    x0, y0, x1, y1 = line.shown
    shown = []
    for panel in filter(None, line.panels):
        cell = panel.cell or line.cell
        rows = slice(int(y0 // cell), int(-(-y1 // cell)))
        columns = slice(int(x0 // cell), int(-(-x1 // cell)))
        shown.append(panel.values[rows, columns].ravel())
    low, high = np.percentile(np.concatenate(shown), [_CLIPPED, 100 - _CLIPPED])
    return float(low), float(high) if high > low else float(low) + 1.0


def draw_feature_figure(lines: Sequence[FeatureLine], note: str) -> "Figure":
    """Draw rows of panels with aligned columns.

    Boxes are drawn on every panel, with their lines outside of what they enclose.

    Args:
        lines: rows with the same number of panels; titles are those of the first row.
        note: text below the figure; it and the captions may contain Matplotlib's math text.

    Returns:
        A figure to save with ``figure.savefig``.

    Raises:
        ValueError: if there is no row, or the rows differ in their number of panels.
    """
    from matplotlib.figure import Figure

    columns = {len(line.panels) for line in lines}
    if len(columns) != 1:
        raise ValueError(
            f"the rows of a figure must have equally many panels, got {sorted(columns)}"
        )
    panel_width = max(_PANEL_WIDTH, *(_MIN_HEIGHT / _aspect(line) for line in lines))
    heights = [panel_width * _aspect(line) for line in lines]
    width = 2 * _MARGIN + (1 + columns.pop()) * (panel_width + _GAP) + _BAR_SPACE
    titles = ["Image", *(panel.title if panel else "" for panel in lines[0].panels)]
    titles = [wrap_text(title, panel_width, _TITLE_SIZE) for title in titles]
    title_height = 0.06 + _TEXT_LINE * max(title.count("\n") + 1 for title in titles)
    note = wrap_text(note, width - 2 * _MARGIN, _TEXT_SIZE)
    note_height = 0.05 + _TEXT_LINE * (note.count("\n") + 1)
    height = 2 * _MARGIN + title_height + note_height
    height += sum(heights) + len(lines) * (_CAPTION + _LINE_GAP) - _LINE_GAP

    figure = Figure(figsize=(width, height))
    top = height - _MARGIN - title_height
    for i, (line, line_height) in enumerate(zip(lines, heights, strict=True)):
        axes = _add_line(figure, line, top, (panel_width, line_height))
        if i == 0:
            for ax, title in zip(axes, titles, strict=True):
                ax.set_title(title, fontsize=_TITLE_SIZE, pad=4, parse_math=False)
        top -= line_height + _CAPTION + _LINE_GAP
    figure.text(
        _MARGIN / width, _MARGIN / height, note, fontsize=_TEXT_SIZE, color="0.25", va="bottom"
    )
    return figure


def _aspect(line: FeatureLine) -> float:
    """Return height / width of the visible part."""
    x0, y0, x1, y1 = line.shown
    return (y1 - y0) / (x1 - x0)


def _add_line(
    figure: "Figure", line: FeatureLine, top: float, size: tuple[float, float]
) -> list["Axes"]:
    """Add the image, the panels and the color bar of a row.

    Args:
        figure: the figure.
        line: the row to draw.
        top: inches from the bottom of the figure to the top of the row.
        size: width and height of a panel in inches.

    Returns:
        The axes of the panels, including those of empty places.
    """
    width, total = figure.get_size_inches()
    panel_width, height = size

    def place(left: float, box_width: float) -> tuple[float, float, float, float]:
        """Convert inches in this row to fractions of the figure."""
        return left / width, (top - height) / total, box_width / width, height / total

    limits = color_limits(line)
    axes: list[Axes] = []
    mapped: AxesImage | None = None
    for i, panel in enumerate([None, *line.panels]):
        ax = figure.add_axes(place(_MARGIN + i * (panel_width + _GAP), panel_width))
        axes.append(ax)
        if i == 0 and line.image is not None:
            ax.imshow(line.image, extent=(0, line.size[0], line.size[1], 0))
            _finish_panel(ax, line, panel_width)
            caption = keep_end(line.caption, panel_width, _TEXT_SIZE)
            ax.set_xlabel(caption, fontsize=_TEXT_SIZE, labelpad=3, parse_math=False)
        elif panel is not None:
            mapped = _add_map(ax, line, panel, limits)
            _finish_panel(ax, line, panel_width)
            ax.set_xlabel(panel.caption, fontsize=_TEXT_SIZE, labelpad=3)
        else:
            ax.set_axis_off()
    if mapped is not None:
        bar_left = _MARGIN + len(axes) * (panel_width + _GAP)
        cax = figure.add_axes(place(bar_left, _BAR_WIDTH))
        _add_bar(figure, cax, mapped, line, height)
    return axes


def _add_bar(
    figure: "Figure", cax: "Axes", mapped: "AxesImage", line: FeatureLine, height: float
) -> None:
    """Draw a row's color bar; ``height`` in inches."""
    extend = "neither" if line.limits else "both"
    bar = figure.colorbar(mapped, cax=cax, extend=extend, extendfrac=0.03)
    if line.opacity < 1:
        cax.set_facecolor(_BENEATH)
    cax.tick_params(labelsize=_TICK_SIZE, length=2, pad=1.5)
    bar.set_label(wrap_text(line.scale_label, height, _TICK_SIZE), fontsize=_TICK_SIZE)
    bar.outline.set_linewidth(0.4)


def _add_map(
    ax: "Axes", line: FeatureLine, panel: FeaturePanel, limits: tuple[float, float]
) -> "AxesImage":
    # The last cells may extend beyond the image; the axes end at the image.
    cell = panel.cell or line.cell
    height, width = (cell * cells for cells in panel.values.shape)
    if line.opacity < 1:
        grey = 255 - (255 - line.image @ _LUMA) * _CONTRAST
        ax.imshow(grey, extent=(0, line.size[0], line.size[1], 0), cmap="gray", vmin=0, vmax=255)
    return ax.imshow(
        panel.values,
        extent=(0, width, height, 0),
        cmap=line.colors,
        vmin=limits[0],
        vmax=limits[1],
        alpha=line.opacity,
    )


def _finish_panel(ax: "Axes", line: FeatureLine, panel_width: float) -> None:
    x0, y0, x1, y1 = line.shown
    ax.set(xlim=(x0, x1), ylim=(y1, y0), xticks=[], yticks=[], aspect="auto")
    for spine in ax.spines.values():
        spine.set_linewidth(0.4)
    _draw_boxes(ax, line.boxes, (x1 - x0) / (panel_width * 72), line.box_scale)


def _draw_boxes(ax: "Axes", boxes: np.ndarray, pixels_per_point: float, scale: float) -> None:
    from matplotlib.patches import Rectangle
    from matplotlib.patheffects import Normal, Stroke

    line_width, edge_width = scale * _BOX_LINE, scale * _BOX_EDGE
    grow = (line_width / 2 + edge_width) * pixels_per_point
    for x0, y0, x1, y1 in np.asarray(boxes, dtype=float):
        outline = Rectangle(
            (x0 - grow, y0 - grow),
            x1 - x0 + 2 * grow,
            y1 - y0 + 2 * grow,
            fill=False,
            edgecolor="white",
            linewidth=line_width,
            joinstyle="miter",
        )
        edge = Stroke(linewidth=line_width + 2 * edge_width, foreground="black")
        outline.set_path_effects([edge, Normal()])
        ax.add_patch(outline)
