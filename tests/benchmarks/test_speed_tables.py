import pytest
from rendering.speed_tables import (
    KEPT_MEMORY,
    find,
    render_detector_steps,
    render_growth,
    render_imports,
    render_lazy_accuracy,
    render_loading,
    render_parts,
    render_speed,
    render_targets,
    render_train_step,
)

pytestmark = pytest.mark.fast


def row(ratio, macs, memory=None, share=None):
    own = {"seconds": 2 * ratio, "ratio": ratio, "ratio_quartiles": [ratio - 0.1, ratio + 0.1]}
    own["gmacs"] = {"bottom_up": macs / 2, "fpn": macs / 2}
    if memory is not None:
        own["memory_gib"] = memory
    if share is not None:
        own["p2_prime_share"] = share
    return own


def record(size=800, **changes):
    return {
        "backbone": "ResNet-50",
        "size": size,
        "device": "cpu",
        "precision": "float32",
        "channels_last": False,
        "threads": 2,
        "rounds": 5,
        "commit": "0123456789",
        "versions": {"torch": "2"},
        "hardware": {"cpu": "some", "gpus": []},
        "rows": {
            "FPN": row(1.0, 100.0, 2.0),
            "EFPN paper, dense": row(1.8, 150.0, 3.0),
            "EFPN paper, lazy, 10 % active": row(1.15, 110.0, 2.2, 0.104),
        },
        **changes,
    }


def test_a_table_has_times_costs_and_memory_beside_fpns():
    lines = render_speed(record()).splitlines()
    cells = ["EFPN paper, lazy, 10 % active", "1.15", "1.05-1.25", "2.30", "110", "1.10"]
    assert lines[4] == "| " + " | ".join([*cells, "2.20", "1.10", "10 %"]) + " |"
    assert lines[2].endswith("| 2.00 | 1.00 | - |")
    assert lines[-1].startswith("ResNet-50, 800 px, float32; some, 2 threads; median of 5 rounds")


@pytest.mark.parametrize(
    ("environment", "end"),
    [
        ({}, "commit 0123456."),
        (KEPT_MEMORY, "memory kept."),
        ({**KEPT_MEMORY, "MALLOC_TOP_PAD_": "1"}, "MALLOC_TOP_PAD_=1 MALLOC_TRIM_THRESHOLD_=-1`."),
    ],
)
def test_how_memory_was_got_is_told(environment, end):
    assert render_speed(record(environment=environment)).endswith(end)


def test_seconds_of_the_parts_beside_their_arithmetic():
    own = {**row(1.0, 100.0), "part_seconds": {"bottom_up": 0.5, "outside": 0.25}}
    lines = render_parts(record(rows={"FPN": own})).splitlines()
    assert lines[2] == "| FPN | bottom_up | 50.0 | 0.500 | 100 |"
    assert lines[3] == "| FPN | outside | - | 0.250 | - |"


def test_targets_are_met_or_missed():
    text = render_targets({"a": record()}, 800, "cpu")
    assert "| ResNet-50 | EFPN paper, lazy, 10 % active: time | 1.60 | 1.15 | met |" in text
    assert "| ResNeXt-101 32x8d |  |  | not run |  |" in text
    slow = record(backbone="ResNeXt-101 32x8d", rows={"EFPN paper, dense": row(2.34, 150.0)})
    text = render_targets({"a": slow}, 800, "cpu")
    assert "| ResNeXt-101 32x8d | EFPN paper, dense: time | 2.33 | 2.34 | missed |" in text


def test_only_the_plain_record_is_compared_with_targets():
    others = {"b": record(precision="bfloat16"), "c": record(channels_last=True)}
    assert find({**others, "d": record(512)}, "ResNet-50", 800, "cpu") is None
    assert find({**others, "a": record()}, "ResNet-50", 800, "cpu") == record()


def test_growth_is_in_the_order_of_sizes():
    lines = render_growth({"a": record(1400), "b": record(512)}, "ResNet-50", "cpu").splitlines()
    assert [line.split(" | ")[0] for line in lines[2:]] == ["| 512 px", "| 1400 px"]
    assert "2.00 s | 3.60 s (1.80 x) | 2.30 s (1.15 x) | -" in lines[2]
    assert render_growth({}, "ResNet-50", "cpu") == "(not run)"


def test_accuracy_beside_the_share_computed():
    bbox = {"AP": 50.004, "AP_0_8": 20.0, "AP_8_inf": 60.0, "AR_0_8": 1.0}
    rows = {"dense": {"bbox": bbox, "share": 1.0}, "lazy": {"bbox": bbox, "share": 0.25}}
    lines = render_lazy_accuracy({"rows": rows, "tile_sides": [8], "commit": None}).splitlines()
    assert lines[0] == "|  | AP | AP 0-8 px | AP 8+ px | AR 0-8 px | of P'2 computed |"
    assert lines[3] == "| lazy | 50.00 | 20.00 | 60.00 | 1.00 | 25 % |"


def test_loading_in_a_sentence():
    numbers = {"iteration_seconds": 0.25, "waiting_share": 0.021, "loader_seconds": 0.0242}
    setup = {"config": "a.yaml", "device": "cpu", "threads": 2, "workers": 1}
    text = render_loading({**setup, **numbers, "images_per_batch": 8, "commit": "0123456789"})
    assert "takes 0.25 s an iteration of 8 images and waits 2.1 % of the time" in text
    assert text.endswith("in 0.024 s (commit 0123456).")


@pytest.mark.parametrize(("ratio", "verdict"), [(1.1, "met"), (1.11, "missed")])
def test_a_step_of_distillation_beside_the_bare_passes(ratio, verdict):
    rows = {
        "FPN at 1x": {**row(0.5, 1.0, 3.0), "ratio_to_fpn": 1.0},
        "bare passes of distillation": {**row(1.0, 1.0, 2.0), "ratio_to_fpn": 2.0},
        "distillation step": {**row(ratio, 1.0, 2.5), "ratio_to_fpn": 2.3},
    }
    own = record(size=640, batch=1, depth=50, preset="paper", rows=rows)
    lines = render_train_step(own).splitlines()
    assert lines[2] == "| FPN at 1x | 0.50 | 0.40-0.60 | 1.00 | 1.00 | 3.00 | 1.50 |"
    assert lines[4].startswith(f"| distillation step | {ratio:.2f} | ")
    assert lines[4].endswith(f" | 2.30 | {2 * ratio:.2f} | 2.50 | 1.25 |")
    assert f"the bare passes, {verdict}. ResNet-50" in lines[-1]


@pytest.mark.parametrize(("device", "head"), [("cpu", "CPU time, of FPN's"), ("cuda", "time, of")])
def test_steps_of_detectors_beside_fpns(device, head):
    rows = {"FPN": row(1.0, 1.0, 2.0), "EFPN slim + SGDM": row(1.2, 1.0, 2.3)}
    own = record(size=640, batch=1, depth=50, rows=rows, device=device)
    lines = render_detector_steps(own).splitlines()
    assert lines[0].split(" | ")[1].startswith(head)
    assert lines[3] == "| EFPN slim + SGDM | 1.20 | 1.10-1.30 | 2.40 | 2.30 | 1.15 |"
    assert "640 px" in lines[-1]


@pytest.mark.parametrize(("ratio", "verdict"), [(1.3, "met"), (1.5, "missed")])
def test_the_import_beside_detectron2s(ratio, verdict):
    own = {**row(ratio, 1.0), "ratio_to_modeling": 1.02}
    text = render_imports(record(rows={"import efpn_d2": own}))
    assert f"{2 * ratio:.1f} s of CPU time, {ratio:.2f} times that of `import detectron2`" in text
    assert f"target: at most 1.30, {verdict}" in text
    assert "1.02 times that of `import detectron2.modeling`" in text
