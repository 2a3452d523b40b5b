import numpy as np
import pytest
from PIL import Image

import report
import report_picture
from tests.report.browser import INSTALL, find_browser
from tests.report.sample import write_sample


def test_what_is_missing_is_named(tmp_path, monkeypatch):
    options = ["--report", str(tmp_path), "--output", str(tmp_path / "a.png")]
    monkeypatch.setattr(report_picture.shutil, "which", lambda name: None)
    with pytest.raises(SystemExit, match="no browser found: apt-get install chromium"):
        report_picture.main(options)
    monkeypatch.setattr(report_picture.shutil, "which", lambda name: name)
    with pytest.raises(SystemExit, match="index.html is not there: make the report"):
        report_picture.main(options)


@pytest.mark.skipif(find_browser() is None, reason=INSTALL)
def test_picture_of_an_open_image(tmp_path):
    sample = write_sample(tmp_path / "sample", images=3)
    files = ["--predictions", sample.runs[0], "--dataset", sample.annotations]
    files += ["--images", sample.images, "--output", tmp_path / "r"]
    report.main([str(argument) for argument in files])
    pictures = []
    for more in ([], ["--image", "0"]):
        output = tmp_path / "a.png"
        options = ["--report", tmp_path / "r", "--output", output, "--size", "600", "400", *more]
        report_picture.main([str(option) for option in options])
        pictures.append(np.asarray(Image.open(output)))
    assert pictures[0].shape == pictures[1].shape == (400, 600, 3)
    # The viewer's stage is dark, the page is not.
    assert pictures[1][200:300].mean() < pictures[0][200:300].mean() - 20
