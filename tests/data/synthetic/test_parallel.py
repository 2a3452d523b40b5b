"""Worker processes; each imports torch, so this takes seconds even for a few images."""

from pathlib import Path

from efpn_d2.data.synthetic import SyntheticConfig, generate_synthetic


def contents(root: Path) -> dict[str, bytes]:
    files = (path for path in root.rglob("*") if path.is_file())
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in files}


def test_files_do_not_depend_on_the_number_of_workers(tmp_path):
    config = SyntheticConfig(student_size=96, max_size=32.0, num_images=6)
    for workers in (1, 2):
        generate_synthetic(config, str(tmp_path / str(workers)), workers, progress=False)
    one, two = contents(tmp_path / "1"), contents(tmp_path / "2")
    assert len(one) == 8  # images, JSON, options
    assert one == two
