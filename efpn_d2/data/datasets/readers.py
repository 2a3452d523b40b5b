"""From a source folder to the data sets in it: what ``tools/prepare_dataset.py`` can read."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from efpn_d2.data.datasets import aitod, coco_json, tt100k, visdrone
from efpn_d2.data.datasets.source import RawDataset
from efpn_d2.data.datasets.validation import Report

# A data set's name, and what reads it; reading adds its findings to the report.
NamedReader = tuple[str, Callable[[Report], RawDataset]]


@dataclass(frozen=True)
class Selection:
    """Which data sets of a source are wanted; None: what is there.

    Attributes:
        version: of TT100K or AI-TOD.
        classes: of TT100K, "all" or "45".
        images, name: image folder and name of the data set of a single COCO JSON.
        splits: names of splits.
    """

    version: str | None = None
    classes: str | None = None
    images: Path | None = None
    name: str | None = None
    splits: Sequence[str] | None = None


def _tt100k(source: Path, selection: Selection) -> Iterable[NamedReader]:
    if not source.is_dir():
        raise FileNotFoundError(f"--source '{source}' is no folder.")
    if (source / "data").is_dir() and not (source / "train").is_dir():
        source = source / "data"
    version = selection.version or tt100k.find_version(source)
    only_45 = selection.classes == "45"
    there = [split for split in tt100k.SPLITS if (source / split / "ids.txt").is_file()]
    if "test" in there and not only_45:
        there.append("test45")
    for split in _choose(selection.splits, there, (*tt100k.SPLITS, "test45"), source):
        read = partial(_call, tt100k.read_tt100k, source, version, split, only_45=only_45)
        yield tt100k.tt100k_name(version, split, only_45), read


def _visdrone(source: Path, selection: Selection) -> Iterable[NamedReader]:
    folders = {split: visdrone.find_split(source, split) for split in visdrone.SPLITS}
    there = [split for split, folder in folders.items() if folder is not None]
    for split in _choose(selection.splits, there, visdrone.SPLITS, source):
        folder = folders[split] or source / f"VisDrone2019-DET-{split}"
        name = f"visdrone_det_{split.replace('-', '_')}"
        yield name, partial(_call, visdrone.read_visdrone, folder)


def _aitod(source: Path, selection: Selection) -> Iterable[NamedReader]:
    found = aitod.find_aitod(source, selection.version)
    there = [split for split in aitod.SPLITS if any(split == key[1] for key in found)]
    splits = _choose(selection.splits, there, aitod.SPLITS, source)
    for (version, split), (json_file, images) in found.items():
        if split in splits:
            name = f"aitod_{version}_{split}"
            yield name, partial(_call, aitod.read_aitod, json_file, images)


def _coco(source: Path, selection: Selection) -> Iterable[NamedReader]:
    if not source.is_dir():
        if selection.images is None:
            raise ValueError("--source is a file, so --images must be the folder of its images.")
        if selection.splits:
            raise ValueError("--splits is for a folder as --source; a file is one data set.")
        name = selection.name or source.stem
        yield name, partial(_call, coco_json.read_coco, source, selection.images)
        return
    if selection.images or selection.name:
        raise ValueError("--images and --name are for a JSON as --source, which is a folder.")
    found = coco_json.find_coco_splits(source)
    for split in _choose(selection.splits, list(found), list(found), source):
        name = f"{source.resolve().name}_{split}"
        yield name, partial(_call, coco_json.read_coco, *found[split])


def _call(function: Callable[..., RawDataset], *args: object, **kwargs: object) -> RawDataset:
    *rest, report = args
    return function(*rest, report, **kwargs)


def _choose(
    wanted: Sequence[str] | None, there: Sequence[str], known: Sequence[str], source: Path
) -> Sequence[str]:
    for split in wanted or ():
        if split not in known:
            raise ValueError(f"--splits has '{split}': choose from {', '.join(known) or 'none'}.")
    if not wanted and not there:
        splits = f"the splits {', '.join(known)}" if known else "annotations/instances_*.json"
        raise FileNotFoundError(f"--source '{source}' has none of {splits}.")
    return wanted or there


READERS: dict[str, Callable[[Path, Selection], Iterable[NamedReader]]] = {
    "tt100k": _tt100k,
    "aitod": _aitod,
    "visdrone": _visdrone,
    "coco": _coco,
}
