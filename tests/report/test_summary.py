import json

import numpy as np
import pytest

from efpn_d2.evaluation.error_analysis import analyze_run
from efpn_d2.evaluation.error_summary import confusion
from efpn_d2.report import PROTOCOLS
from efpn_d2.report.gallery import ONLY_HERE, changes, image_counters, script_json
from efpn_d2.report.run import Run
from efpn_d2.report.run_metrics import run_metrics
from efpn_d2.report.summary import kind_names, summarize
from tests.evaluation.random_data import detections, ground_truth, random_data

pytestmark = pytest.mark.fast

PROTOCOL = PROTOCOLS["small"]


def make_run(truth, found, threshold=0.3) -> Run:
    metrics = run_metrics(truth, found, PROTOCOL, "pycocotools")
    return Run("run", analyze_run(truth, found), metrics, threshold)


def test_many_classes_are_shown_by_their_confusions():
    # Objects of 40 classes; of the classes 30 and 31 each is taken for the other.
    boxes = [[10 * (k % 9), 0, 10 * (k % 9) + 8, 8] for k in range(40)]
    truth = ground_truth(range(40), boxes, range(40), 40, 40)
    labels = [{30: 31, 31: 30}.get(k, k) for k in range(40)]
    run = make_run(truth, detections(range(40), boxes, labels, [0.9] * 40))
    data = summarize([run], PROTOCOL)
    assert len(data["confusionClasses"]) == 24 and {30, 31} <= set(data["confusionClasses"])
    (reduced,) = np.array(data["confusion"])
    assert reduced.shape == (26, 26)
    assert reduced.sum() == confusion(run.analysis, 0.3).sum() == 40
    at = [data["confusionClasses"].index(k) for k in (30, 31)]
    assert reduced[at[0], at[1]] == reduced[at[1], at[0]] == 1
    assert np.trace(reduced[:24, :24]) == 22 and reduced[24, 24] == 16


def test_classes_without_anything_are_the_last_to_be_shown():
    # 40 classes, of which only the last three have objects; one of them is missed.
    boxes = [[10 * k, 0, 10 * k + 8, 8] for k in range(3)]
    truth = ground_truth(range(3), boxes, (37, 38, 39), 40, 40)
    run = make_run(truth, detections(range(2), boxes[:2], (37, 38), [0.9] * 2))
    data = summarize([run], PROTOCOL)
    assert data["confusionClasses"][-3:] == [37, 38, 39]
    assert np.array(data["confusion"])[0][24].sum() == 0


def test_curves_follow_the_order_of_the_menu():
    truth, found = random_data(2)
    data = summarize([make_run(truth, found)], PROTOCOL)
    choices = len(data["areas"]) + len(data["classes"])
    for name in ("precision", "accuracy", "histogram"):
        assert len(data[name][0]) == choices
    assert all(len(curve) in (0, 101) for curve in data["precision"][0])
    by_class = [sum(map(sum, h)) for h in data["histogram"][0][len(data["areas"]) :]]
    assert sum(by_class) == sum(map(sum, data["histogram"][0][0]))
    point = data["accuracy"][0][0]
    assert point["score"][point["at"]] >= 0.3 > point["score"][point["at"] + 1]
    json.dumps(data, allow_nan=False)


def test_what_only_one_run_found_is_counted_by_image():
    truth, found = random_data(4)
    first = make_run(truth, found)
    kept = slice(None, None, 2)
    fewer = detections(
        found.image[kept], found.boxes[kept], found.classes[kept], found.scores[kept]
    )
    second = make_run(truth, fewer)
    counted = [
        [sum(n for (kind, *_), n in c.items() if kind == ONLY_HERE) for c in counters]
        for counters in (
            image_counters(first, PROTOCOL, second),
            image_counters(second, PROTOCOL, first),
        )
    ]
    expected = changes([first, second], len(truth.images))
    assert counted == [expected[:, 1].tolist(), expected[:, 0].tolist()]
    assert sum(counted[0]) > 0
    assert kind_names()[ONLY_HERE] == "only here"


@pytest.mark.parametrize("text", ["</script>", "<!--", "a & b", "\u2028", 'q"\\'])
def test_json_cannot_leave_its_element(text):
    written = script_json({"name": text})
    assert json.loads(written) == {"name": text}
    assert not set("<>&\u2028") & set(written)
    with pytest.raises(ValueError):
        script_json(float("nan"))
