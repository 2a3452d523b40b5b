import cv2
import numpy as np
import pytest
import torch
from detectron2.structures import Boxes, Instances

from efpn_d2.inference import drawing, find_class_names, load_inference_config
from efpn_d2.visualization.instances import class_color
from tests.demo.conftest import load_script

pytestmark = pytest.mark.fast
demo = load_script("demo")


class FakePredictor:
    """Finds one object of class 3 at (10, 12) to (18, 20) in every image."""

    def __init__(self, cfg):
        self.threshold = cfg.MODEL.ROI_HEADS.SCORE_THRESH_TEST

    def __call__(self, image):
        assert image.dtype == np.uint8
        found = Instances(image.shape[:2])
        found.pred_boxes = Boxes(torch.tensor([[10.0, 12, 18, 20]]))
        found.scores, found.pred_classes = torch.tensor([0.8]), torch.tensor([3])
        return {"instances": found[found.scores >= self.threshold]}


@pytest.fixture
def fake_detector(monkeypatch):
    monkeypatch.setattr(drawing, "EFPNPredictor", FakePredictor)


def run(config_file, *args):
    return demo.main(["--config-file", config_file, *map(str, args)])


def refused(capsys, config_file, *args):
    """The message of a command line that is refused before any work."""
    with pytest.raises(SystemExit) as exit_info:
        run(config_file, *args)
    assert exit_info.value.code == 2
    return capsys.readouterr().err


def test_real_model_draws_a_folder(config_file, image_dir, tmp_path, capsys):
    out = tmp_path / "out"
    code = run(
        config_file,
        "--input",
        image_dir,
        "--output",
        out,
        "--zoom",
        2,
        "--confidence-threshold",
        0.0,
    )
    assert code == 0
    assert sorted(p.name for p in out.iterdir()) == ["0.png", "1.png", "2.png"]
    drawn, image = cv2.imread(str(out / "0.png")), cv2.imread(str(image_dir / "0.png"))
    assert drawn.shape == (96, 128, 3)
    assert (drawn != image.repeat(2, axis=0).repeat(2, axis=1)).any()
    assert "15 objects in 3 of 3 images" in capsys.readouterr().out


@pytest.mark.usefixtures("fake_detector")
def test_object_is_framed_in_its_colour_and_left_as_it_is(config_file, image_dir, tmp_path):
    out = tmp_path / "drawn.png"
    assert run(config_file, "--input", image_dir / "0.png", "--output", out) == 0
    drawn, image = cv2.imread(str(out)), cv2.imread(str(image_dir / "0.png"))
    np.testing.assert_array_equal(drawn[12:20, 10:18], image[12:20, 10:18])
    assert (drawn[10, 8:20] == class_color(3)[::-1]).all()


@pytest.mark.usefixtures("fake_detector")
def test_threshold_reaches_the_model(config_file, image_dir, tmp_path, capsys):
    for threshold, expected in ((0.8 - 1e-4, "3 objects"), (0.81, "0 objects")):
        run(
            config_file,
            "--input",
            image_dir,
            "--output",
            tmp_path / "out",
            "--confidence-threshold",
            threshold,
        )
        assert expected in capsys.readouterr().out


@pytest.mark.usefixtures("fake_detector")
def test_class_names_are_known_without_the_data(config_file, monkeypatch, tmp_path):
    monkeypatch.setenv("DETECTRON2_DATASETS", str(tmp_path / "nothing"))
    cfg = load_inference_config(config_file)
    assert find_class_names(cfg)[3] == "triangle_one_dot"


@pytest.mark.usefixtures("fake_detector")
def test_data_set_that_is_not_there_shows_numbers(config_file):
    entry = [["mine", "no/such.json", "no/such"]]
    options = ["COCO_DATA.REGISTER", repr(entry), "DATASETS.TEST", "('mine',)"]
    options += ["DATASETS.TRAIN", "()"]
    assert find_class_names(load_inference_config(config_file, options)) == []


@pytest.mark.usefixtures("fake_detector")
def test_unreadable_images_are_named_and_the_others_go_on(
    config_file, image_dir, tmp_path, caplog, monkeypatch
):
    monkeypatch.setattr(demo, "setup_logger", lambda **_: None)  # it keeps records from caplog
    (image_dir / "damaged.png").write_bytes((image_dir / "0.png").read_bytes()[:500])
    (image_dir / "text.jpg").write_text("no image")
    cv2.imwrite(str(image_dir / "16_bits.png"), np.full((48, 64), 1000, dtype=np.uint16))
    missing = image_dir / "missing.jpg"
    out = tmp_path / "out"
    assert run(config_file, "--input", image_dir, missing, "--output", out) == 1
    assert sorted(p.name for p in out.iterdir()) == ["0.png", "1.png", "2.png"]
    skipped = [r.getMessage() for r in caplog.records if "Skipped" in r.getMessage()]
    assert len(skipped) == 4
    names = ("damaged.png", "text.jpg", "missing.jpg", "16_bits.png")
    assert all(any(n in s for s in skipped) for n in names)
    assert "convert it to 8 bits" in next(s for s in skipped if "16_bits.png" in s)
    assert "4 of 7 images could not be read" in caplog.records[-1].getMessage()


def test_an_image_that_fails_does_not_take_the_others_along(
    config_file, image_dir, tmp_path, caplog, capsys, monkeypatch
):
    monkeypatch.setattr(demo, "setup_logger", lambda **_: None)  # it keeps records from caplog
    cv2.imwrite(str(image_dir / "00_strip.png"), np.zeros((1, 5000, 3), dtype=np.uint8))
    out = tmp_path / "out"
    (out / "1.png").mkdir(parents=True)
    args = ("--input", image_dir, "--output", out, "--confidence-threshold", 0.0)
    assert run(config_file, *args) == 1
    assert sorted(p.name for p in out.iterdir() if p.is_file()) == ["0.png", "2.png"]
    skipped = [r.getMessage() for r in caplog.records if "Skipped" in r.getMessage()]
    assert len(skipped) == 2
    assert "00_strip.png" in skipped[0] and "INPUT.MAX_SIZE_TEST" in skipped[0]
    assert "1.png" in skipped[1] and "is a folder" in skipped[1]
    ends = [record.getMessage() for record in caplog.records[-2:]]
    assert all("1 of 4 images" in end for end in ends)
    assert "10 objects in 2 of 4 images" in capsys.readouterr().out


@pytest.mark.usefixtures("no_detector")
def test_a_file_in_the_way_of_the_output_is_named_before_the_work(
    config_file, image_dir, tmp_path, capsys
):
    (tmp_path / "taken").write_text("")
    for output in (tmp_path / "taken", tmp_path / "taken" / "below"):
        message = refused(capsys, config_file, "--input", image_dir, "--output", output)
        assert f"'{tmp_path / 'taken'}' is in the way" in message
    source = tmp_path / "in.avi"
    writer = cv2.VideoWriter(str(source), cv2.VideoWriter_fourcc(*"MJPG"), 12, (64, 48))
    writer.write(np.zeros((48, 64, 3), dtype=np.uint8))
    writer.release()
    (tmp_path / "videos" / "in.mp4").mkdir(parents=True)
    args = ("--video-input", source, "--output", tmp_path / "videos")
    assert "in.mp4' is a folder" in refused(capsys, config_file, *args)


@pytest.mark.usefixtures("fake_detector")
@pytest.mark.parametrize("suffix", [".mp4", ".avi"])
def test_video(config_file, tmp_path, suffix):
    source, out = tmp_path / "in.avi", tmp_path / f"out{suffix}"
    writer = cv2.VideoWriter(str(source), cv2.VideoWriter_fourcc(*"MJPG"), 12, (64, 48))
    for i in range(7):
        writer.write(np.full((48, 64, 3), 30 * i, dtype=np.uint8))
    writer.release()

    assert run(config_file, "--video-input", source, "--output", out, "--zoom", 2) == 0
    video = demo.VideoReader(str(out))
    frames = list(video)
    assert video.fps == 12 and len(frames) == 7 and frames[0].shape == (96, 128, 3)
    for i, frame in enumerate(frames):  # compression changes colours a little
        assert abs(int(frame[80, 110].mean()) - 30 * i) < 12
        assert np.abs(frame[17:20, 30].astype(int) - class_color(3)[::-1]).max() > 0


def test_video_without_frames(config_file, tmp_path, capsys):
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(b"nothing")
    message = refused(capsys, config_file, "--video-input", broken, "--output", tmp_path / "o.mp4")
    assert f"Cannot open the video '{broken}'" in message


@pytest.fixture
def no_detector(monkeypatch):
    """Building a model fails."""

    def build(cfg):
        raise AssertionError("a model was built")

    monkeypatch.setattr(drawing, "EFPNPredictor", build)


@pytest.mark.usefixtures("no_detector")
def test_unknown_suffix_is_refused_before_the_work(config_file, image_dir, tmp_path, capsys):
    source = tmp_path / "in.avi"
    writer = cv2.VideoWriter(str(source), cv2.VideoWriter_fourcc(*"MJPG"), 12, (64, 48))
    writer.write(np.zeros((48, 64, 3), dtype=np.uint8))
    writer.release()
    video, image = tmp_path / "new" / "out.gif", tmp_path / "new" / "out.docx"
    message = refused(capsys, config_file, "--video-input", source, "--output", video)
    assert "error: Cannot write a video as 'out.gif'; use one of .mp4, " in message
    message = refused(capsys, config_file, "--input", image_dir / "0.png", "--output", image)
    assert "error: Cannot write a picture as 'out.docx'; use one of .jpg, " in message
    assert not (tmp_path / "new").exists()


@pytest.mark.usefixtures("fake_detector")
def test_image_of_a_suffix_that_cannot_be_written_becomes_a_png(config_file, image_dir, tmp_path):
    (image_dir / "0.png").rename(image_dir / "photo.heif")
    out = tmp_path / "out"
    assert run(config_file, "--input", image_dir / "photo.heif", "--output", out) == 0
    assert [path.name for path in out.iterdir()] == ["photo.png"]


@pytest.mark.usefixtures("no_detector")
@pytest.mark.parametrize(
    "text, reason",
    [
        ("VERSION: 2\nMODEL: {NOPE: 1}", "Non-existent config key: MODEL.NOPE"),
        ("VERSION: 2\nMODEL: {DEVICE: 3}", "config key: MODEL.DEVICE"),
        ("VERSION: 2\nMODEL: [1, 2", "while parsing a flow sequence"),
        ("VERSION: 2\nMODEL: 3", "for config key: MODEL"),
        ("only text", "'str' object has no attribute"),
        ("", "not iterable"),
    ],
)
def test_unusable_config_file_is_named(text, reason, image_dir, tmp_path, capsys):
    broken = tmp_path / "broken.yaml"
    broken.write_text(text)
    args = ("--input", image_dir / "0.png", "--output", tmp_path / "out")
    message = refused(capsys, str(broken), *args)
    (sentence,) = (line for line in message.splitlines() if "error: " in line)
    assert f"Cannot read the config '{broken}': " in sentence and reason in sentence
    assert message.endswith(f"{sentence}\n")


def test_bad_arguments_get_one_sentence(config_file, image_dir, tmp_path, capsys):
    image, out = image_dir / "0.png", tmp_path / "out"
    for args, expected in (
        (("--input", f"{image_dir}/*.gif", "--output", out), "No file matches the pattern"),
        (("--input", image, "--output", out, "--zoom", 0), "'0' must be a whole number"),
        (("--input", image, "--output", out, "--confidence-threshold", 50), "between 0 and 1"),
        (("--input", image), "can open no window"),
        (("--input", image, "--output", image_dir), "would be overwritten"),
        (("--input", image, "--output", out, "--opts", "MODEL.NOPE", "1"), "MODEL.NOPE"),
        (("--input", image, "--output", out, "--opts", "SEED"), "Cannot apply the options"),
        (("--input", image, "--output", out, "--opts", "MODEL.WEIGHTS", "no.pth"), "'no.pth'"),
    ):
        message = refused(capsys, config_file, *args)
        assert expected in message
    assert not out.exists()
    assert "has no config 'nope.yaml'" in refused(
        capsys, "nope.yaml", "--input", image, "--output", out
    )
