import json
import logging

import numpy as np
import pytest
import yaml

from efpn_d2.inspection.distance_curves import (
    Curve,
    draw_distance_curves,
    read_distances,
    running_mean,
    write_distance_curves,
)

pytestmark = pytest.mark.fast

P2, P2_ON_OBJECTS, P3 = (
    f"loss_distill_{name}" for name in ("p2_global", "p2_positive", "p3_global")
)


def write_log(folder, lines, **weights):
    """A stage's folder, with ``DISTILL`` of its config as given."""
    text = [line if isinstance(line, str) else json.dumps(line) for line in lines]
    (folder / "metrics.json").write_text("\n".join(text) + "\n")
    if weights:
        (folder / "config.yaml").write_text(yaml.safe_dump({"DISTILL": weights}))


def test_of_iterations_done_twice_the_last_counts(tmp_path):
    log = [{"iteration": i, P2: v} for i, v in ((19, 5.0), (39, 4.0), (59, 3.0))]
    again = [{"iteration": i, P2: v} for i, v in ((39, 4.5), (59, 3.5), (79, 2.5))]
    write_log(tmp_path, [*log, {"iteration": 60, "bbox/AP": 1.0}, *again], POSITIVE_WEIGHT=1.0)
    curves = read_distances(tmp_path)
    assert list(curves) == [P2]
    assert curves[P2].iterations.tolist() == [19, 39, 59, 79]
    assert curves[P2].values.tolist() == [5.0, 4.5, 3.5, 2.5]


def test_losses_become_distances_by_the_weights_of_the_config(tmp_path):
    entry = {"iteration": 19, P2: 6.0, P2_ON_OBJECTS: 6.0, P3: 1.0}
    write_log(tmp_path, [entry], POSITIVE_WEIGHT=1.5, LOSS_WEIGHT=2.0)
    values = {term: curve.values.tolist() for term, curve in read_distances(tmp_path).items()}
    assert values == {P2: [3.0], P2_ON_OBJECTS: [2.0], P3: [0.5]}


def test_a_term_of_weight_0_is_not_known(tmp_path):
    write_log(tmp_path, [{"iteration": 19, P2: 6.0, P2_ON_OBJECTS: 0.0}], POSITIVE_WEIGHT=0.0)
    assert list(read_distances(tmp_path)) == [P2]


def test_a_line_cut_off_by_a_kill_is_left_out_and_told(tmp_path, caplog):
    good = {"iteration": 39, P2: 2.0}
    write_log(tmp_path, ['{"iteration": 19, "loss_di', good], LOSS_WEIGHT=1.0)
    with caplog.at_level(logging.WARNING):
        assert read_distances(tmp_path)[P2].values.tolist() == [2.0]
    assert "1 incomplete line(s)" in caplog.text


def test_without_a_config_weights_are_1_and_it_is_told(tmp_path, caplog):
    write_log(tmp_path, [{"iteration": 19, P2: 2.0}])
    with caplog.at_level(logging.WARNING):
        assert read_distances(tmp_path)[P2].values.tolist() == [2.0]
    assert "weights of the losses are assumed to be 1" in caplog.text


def test_a_folder_without_metrics_or_distances_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="There is no metrics.json in"):
        read_distances(tmp_path)
    write_log(tmp_path, [{"iteration": 19, "loss_cls": 1.0}], POSITIVE_WEIGHT=1.0)
    with pytest.raises(ValueError, match="has no distance to a target"):
        read_distances(tmp_path)


@pytest.mark.parametrize("window", [1, 3, 5, 21])
def test_running_mean_is_centred_and_never_one_sided(window):
    values = np.random.default_rng(0).normal(size=12)
    for i, mean in enumerate(running_mean(values, window)):
        half = min(window // 2, i, 11 - i)
        assert mean == pytest.approx(np.mean(values[i - half : i + half + 1]))


def curve(length: int, offset: float = 0.0) -> Curve:
    iterations = 20 * np.arange(1, length + 1) - 1
    return Curve(iterations, offset + np.exp(-iterations / 100) + 0.1 * (np.arange(length) % 2))


RUNS = {
    "FTT": {P2: curve(20), P2_ON_OBJECTS: curve(20, 1.0), P3: curve(20)},
    "ESPCN": {P2: curve(12, 2.0)},
}


def panels(figure):
    return {ax.get_title(loc="left"): ax for ax in figure.axes if ax.axison}


def test_a_panel_per_term_and_a_line_per_run_that_has_it():
    axes = panels(draw_distance_curves(RUNS, smoothing=1))
    assert [title[:7] for title in axes] == ["P'2, al", "P'2, ce", "P'3, al"]
    lines = [ax.lines for ax in axes.values()]
    assert [len(x) for x in lines] == [2, 1, 1]
    np.testing.assert_allclose(lines[0][1].get_xydata(), np.transpose(RUNS["ESPCN"][P2]))
    # A run has one look in all panels and in the legend.
    assert lines[0][0].get_color() == lines[1][0].get_color() == lines[2][0].get_color()
    assert lines[0][0].get_color() != lines[0][1].get_color()


@pytest.mark.parametrize("smoothing", [1, 3])
def test_nothing_is_cut_off_and_0_is_shown(smoothing):
    for ax in panels(draw_distance_curves(RUNS, smoothing)).values():
        low, high = ax.get_ylim()
        assert low == 0
        for line in ax.lines:
            x, y = line.get_data()
            assert high > y.max() and ax.get_xlim()[1] >= x.max()


def test_smoothing_is_said_and_leaves_the_points_visible():
    figure = draw_distance_curves(RUNS, smoothing=3)
    texts = " ".join(text.get_text() for text in figure.texts).replace("\n", " ")
    assert "running mean of 3 logged points" in texts
    points, smooth = panels(figure)["P'3, all elements ($L_{glob}$)"].lines
    np.testing.assert_array_equal(points.get_ydata(), RUNS["FTT"][P3].values)
    np.testing.assert_array_equal(smooth.get_ydata(), running_mean(RUNS["FTT"][P3].values, 3))
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == ["FTT", "ESPCN"]
    assert [h.get_color() for h in legend.get_lines()][0] == smooth.get_color()


def test_runs_beyond_the_number_of_colours_differ_by_their_dashes():
    figure = draw_distance_curves({str(i): {P2: curve(3)} for i in range(28)}, smoothing=1)
    looks = {(line.get_color(), line.get_linestyle()) for line in figure.axes[0].lines}
    assert len(looks) == 28


def test_a_single_point_is_seen(tmp_path):
    figure = draw_distance_curves({"FTT": {P2: curve(1)}}, smoothing=3)
    assert figure.axes[0].lines[-1].get_marker() == "."


@pytest.mark.parametrize(
    ("runs", "smoothing", "message"),
    [({}, 3, "at least one run"), (RUNS, 4, "over 4 points"), (RUNS, 0, "over 0 points")],
)
def test_mistakes_are_one_clear_sentence(tmp_path, runs, smoothing, message):
    with pytest.raises(ValueError, match=message):
        write_distance_curves(tmp_path / "curve.png", runs, smoothing)
