"""Find input images and choose output paths."""

import glob
from collections.abc import Sequence
from pathlib import Path

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp", ".ppm")


def find_images(inputs: Sequence[str]) -> list[Path]:
    """Find images by paths, folders (without subfolders) and glob patterns.

    Args:
        inputs: command-line arguments. A path is kept even if it does not exist, so that it is
            reported by name later. ``**`` in a pattern matches any folders.

    Returns:
        Unique paths in the given order; those of a folder or a pattern are sorted.

    Raises:
        FileNotFoundError: if a folder has no image, or a pattern has no match.
    """
    found: list[Path] = []
    for name in inputs:
        path = Path(name).expanduser()
        if path.is_dir():
            images = sorted(p for p in path.iterdir() if p.suffix.lower() in IMAGE_SUFFIXES)
            if not images:
                raise FileNotFoundError(
                    f"The folder '{name}' has no image ({', '.join(IMAGE_SUFFIXES)})."
                )
            found += images
        elif not path.exists() and glob.has_magic(name):
            matches = [Path(match) for match in sorted(glob.glob(str(path), recursive=True))]
            if not matches:
                raise FileNotFoundError(f"No file matches the pattern '{name}'.")
            found += [match for match in matches if match.is_file()]
        else:
            found.append(path)
    return list(dict.fromkeys(found))


def plan_outputs(inputs: Sequence[Path], output: Path, suffix: str | None = None) -> list[Path]:
    """Choose an output path for each input.

    ``output`` is a file if there is one input, and it has a suffix and is not a folder; otherwise
    it is a folder, and inputs with the same name from different folders are numbered.

    Args:
        inputs: input files.
        output: a file or a folder, which need not exist.
        suffix: suffix of the files in a folder, e.g. ``".mp4"``; None: that of the input if it is
            an image suffix, otherwise ``".png"``.

    Raises:
        ValueError: if an output would overwrite an input, or several inputs would be written to one
            file.
    """
    if output.suffix and not output.is_dir():
        if len(inputs) > 1:
            raise ValueError(
                f"{len(inputs)} inputs cannot all be written to the file '{output}'; give a folder."
            )
        outputs = [output]
    else:
        outputs = []
        for path in inputs:
            name, number = Path(path.name), 2
            if suffix or name.suffix.lower() not in IMAGE_SUFFIXES:
                name = name.with_suffix(suffix or ".png")
            unique = name
            while output / unique in outputs:
                unique = Path(f"{name.stem}_{number}{name.suffix}")
                number += 1
            outputs.append(output / unique)
    sources = {path.resolve() for path in inputs}
    for path in outputs:
        if path.resolve() in sources:
            raise ValueError(f"'{path}' is an input and would be overwritten; give another output.")
    return outputs
