from pathlib import Path

import pytest

from efpn_d2.inference.files import find_images, plan_outputs

pytestmark = pytest.mark.fast


@pytest.fixture
def folder(tmp_path):
    for name in ("b.jpg", "a.PNG", "notes.txt", "sub/c.jpg", "odd[1].jpg"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    return tmp_path


def names(paths, folder):
    return [path.relative_to(folder).as_posix() for path in paths]


def test_folder_gives_its_images_sorted(folder):
    assert names(find_images([str(folder)]), folder) == ["a.PNG", "b.jpg", "odd[1].jpg"]


def test_pattern_and_recursive_pattern(folder):
    assert names(find_images([f"{folder}/b*"]), folder) == ["b.jpg"]
    found = names(find_images([f"{folder}/**/*.jpg"]), folder)
    assert found == ["b.jpg", "odd[1].jpg", "sub/c.jpg"]


def test_file_whose_name_looks_like_a_pattern(folder):
    assert names(find_images([f"{folder}/odd[1].jpg"]), folder) == ["odd[1].jpg"]


def test_order_is_kept_and_nothing_comes_twice(folder):
    found = find_images([f"{folder}/b.jpg", str(folder), f"{folder}/missing.jpg"])
    assert names(found, folder) == ["b.jpg", "a.PNG", "odd[1].jpg", "missing.jpg"]


def test_nothing_found_is_said(folder):
    with pytest.raises(FileNotFoundError, match="No file matches the pattern"):
        find_images([f"{folder}/*.gif"])
    (folder / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match="/empty' .*.jpg, .jpeg"):
        find_images([str(folder / "empty")])


def test_one_input_may_go_to_a_file(tmp_path):
    assert plan_outputs([Path("a.jpg")], tmp_path / "x.png") == [tmp_path / "x.png"]


def test_folder_with_a_dot_is_a_folder_if_it_exists(tmp_path):
    (tmp_path / "v1.0").mkdir()
    assert plan_outputs([Path("a.jpg")], tmp_path / "v1.0") == [tmp_path / "v1.0" / "a.jpg"]


def test_equal_names_do_not_overwrite_each_other(tmp_path):
    inputs = [Path("x/a.jpg"), Path("y/a.jpg"), Path("z/a.jpg")]
    outputs = plan_outputs(inputs, tmp_path)
    assert names(outputs, tmp_path) == ["a.jpg", "a_2.jpg", "a_3.jpg"]


def test_several_inputs_to_one_file_are_refused(tmp_path):
    with pytest.raises(ValueError, match="2 inputs cannot all be written to the file"):
        plan_outputs([Path("a.jpg"), Path("b.jpg")], tmp_path / "x.png")


def test_input_is_not_overwritten(folder):
    with pytest.raises(ValueError, match="is an input and would be overwritten"):
        plan_outputs([folder / "b.jpg"], folder)
