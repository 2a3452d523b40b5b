"""From files of results to a folder with a page."""

import json
import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from efpn_d2.evaluation.coco_arrays import GroundTruth, load_ground_truth
from efpn_d2.report.gallery import CHUNK, gallery_index, write_boxes
from efpn_d2.report.page import build_page
from efpn_d2.report.pictures import write_picture
from efpn_d2.report.protocol import PROTOCOLS, ReportProtocol
from efpn_d2.report.run import Run, load_run
from efpn_d2.report.summary import kind_names, summarize
from efpn_d2.tool_support import error_text

logger = logging.getLogger(__name__)

_MANIFEST = "report_files.json"


@dataclass(frozen=True)
class ReportOptions:
    """How a report looks.

    Args:
        title: heading of the page; None: the data set's name.
        protocol: by which rules it counts.
        threshold: least score of a detection in counts and pictures; None: where each run's F1 is
            highest.
        backend: what computes AP and AR: "auto" or the name of a library.
        max_images: pictures to include, of the worst images; the boxes of all others are on the
            page too, without their picture.
        max_side: longest side of a picture in pixels; larger ones are scaled down.
        names: what the page calls the runs; empty: after their files.
        evaluations: of each run, the ``evaluation_<data set>.json`` that its evaluator wrote, for
            numbers by other protocols than COCO's; empty: none are shown.
    """

    title: str | None = None
    protocol: ReportProtocol = field(default_factory=lambda: PROTOCOLS["small"])
    threshold: float | None = None
    backend: str = "auto"
    max_images: int = 200
    max_side: int = 4096
    names: Sequence[str] = ()
    evaluations: Sequence[str | Path] = ()


def write_report(
    predictions: Sequence[str | Path],
    annotations: str | Path,
    image_root: str | Path,
    output: str | Path,
    options: ReportOptions | None = None,
) -> Path:
    """Write ``index.html`` and the files it shows.

    Args:
        predictions: one file of COCO results, or two to compare.
        annotations: COCO JSON of the data set.
        image_root: folder that the JSON's file names are below.
        output: folder of the report, new or empty, or of an earlier report, which is replaced.
        options: see :class:`ReportOptions`.

    Returns:
        The page.

    Raises:
        FileNotFoundError: there is no folder of images, and pictures are asked for.
        ValueError: there are not one or two runs, a file does not fit, or ``output`` holds other
            files; the message says which.
        OSError: a file of results or annotations cannot be read, or the folder not written.
    """
    options = options or ReportOptions()
    _check_arguments(predictions, annotations, image_root, options)
    start = time.perf_counter()
    truth = load_ground_truth(annotations, options.protocol.rules.excused_fields)
    if not truth.images:
        raise ValueError(f"{annotations} has no images to report on.")
    names = list(options.names) or run_names(predictions)
    evaluations = [_read_evaluation(path) for path in options.evaluations]
    for what, given in (("names", names), ("evaluations", evaluations)):
        if given and len(given) != len(predictions):
            raise ValueError(f"There are {len(given)} {what} for {len(predictions)} run(s).")
    runs = [
        load_run(name, path, truth, options.protocol, options.threshold, options.backend)
        for name, path in zip(names, predictions, strict=True)
    ]
    output = Path(output)
    others = _claim(output)
    index = gallery_index(runs, options.protocol)
    missing = _write_pictures(index, truth, Path(image_root), output, options)
    write_boxes(runs, index, output / "boxes")
    data = {
        **summarize(runs, options.protocol),
        "kinds": kind_names(),
        "chunk": CHUNK,
        "images": [{k: v for k, v in entry.items() if k != "image"} for entry in index],
    }
    title = options.title or f"Detections on {Path(annotations).stem}"
    facts = _facts(runs, predictions, annotations, len(index) - missing)
    page = build_page(
        runs, options.protocol, data, title=title, facts=facts, evaluations=evaluations
    )
    (output / "index.html").write_text(page, encoding="utf-8")
    _note_files(output, others)
    logger.info(f"Wrote {output / 'index.html'} in {time.perf_counter() - start:.1f} s.")
    return output / "index.html"


def _check_arguments(
    predictions: Sequence[str | Path],
    annotations: str | Path,
    image_root: str | Path,
    options: ReportOptions,
) -> None:
    if len(predictions) not in (1, 2):
        raise ValueError(f"A report is on one or two files of results, not {len(predictions)}.")
    if options.max_images and not Path(image_root).is_dir():
        raise FileNotFoundError(
            f"The image folder '{image_root}' is not there: give the one that the file names in "
            f"{annotations} start from, or ask for no pictures."
        )


def run_names(predictions: Sequence[str | Path]) -> list[str]:
    """Short names for files of results: the parts of their paths in which they differ."""
    if len(predictions) == 1:
        return ["detections"]
    paths = [Path(path).resolve().parts for path in predictions]
    names = []
    for path, other in (paths, paths[::-1]):
        own = [part for part in path if part not in other]
        names.append(Path("/".join(own)).with_suffix("").as_posix() if own else "")
    return [name or f"run {n}" for n, name in enumerate(names, start=1)]


def _read_evaluation(path: str | Path) -> dict[str, Any]:
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
        return {"results": dict(content["results"]), "rules": dict(content["rules"])}
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(
            f"{path} is not what an evaluator writes: it needs 'rules' and 'results' "
            f"({type(error).__name__}: {error})."
        ) from error


def _claim(output: Path) -> set[Path]:
    """Make the folder, or remove from it what its manifest says an earlier report has written.

    Returns:
        The files that stay, which are not the report's.

    Raises:
        ValueError: there is something in it and no manifest, so it is no report's folder.
    """
    manifest = output / _MANIFEST
    if manifest.exists():
        for name in json.loads(manifest.read_text(encoding="utf-8")):
            (output / name).unlink(missing_ok=True)
    elif output.is_dir() and any(output.iterdir()):
        raise ValueError(
            f"'{output}' holds files and no report of this tool, which would be mixed with them: "
            "choose a new or an empty folder."
        )
    output.mkdir(parents=True, exist_ok=True)
    manifest.write_text("[]", encoding="utf-8")  # an interrupted report can be made again
    return set(output.rglob("*"))


def _note_files(output: Path, others: set[Path]) -> None:
    """Write the manifest: the files below ``output`` that are not among ``others``."""
    own = sorted(path for path in output.rglob("*") if path.is_file() and path not in others)
    names = [path.relative_to(output).as_posix() for path in own]
    (output / _MANIFEST).write_text(json.dumps(names, indent=0), encoding="utf-8")


def _write_pictures(
    index: list[dict[str, Any]],
    truth: GroundTruth,
    image_root: Path,
    output: Path,
    options: ReportOptions,
) -> int:
    """Add pictures to the first entries of the index; gives how many images have none."""
    failures: list[str] = []
    for number, entry in enumerate(index[: options.max_images]):
        source = image_root / str(truth.images[entry["image"]]["file_name"])
        try:
            picture = write_picture(source, output, number, max_side=options.max_side)
        except (OSError, ValueError) as error:
            failures.append(error_text(error))
        else:
            entry["file"], entry["thumb"] = picture
    if failures and len(failures) == len(index[: options.max_images]):
        logger.warning(
            f"The report has no pictures: no image of the data set could be read below "
            f"'{image_root}', which must be the folder that its file names start from; the first: "
            f"{failures[0]}"
        )
    elif failures:
        images = "1 image" if len(failures) == 1 else f"{len(failures)} images"
        logger.warning(
            f"{images} could not be read, so the report has no picture there; the first: "
            f"{failures[0]}"
        )
    return sum("file" not in entry for entry in index)


def _facts(
    runs: Sequence[Run],
    predictions: Sequence[str | Path],
    annotations: str | Path,
    pictures: int,
) -> list[tuple[str, str]]:
    truth = runs[0].analysis.truth
    objects = int((~truth.crowd).sum())
    facts = [
        ("Data set", str(annotations)),
        (
            "Images",
            f"{len(truth.images):,} with {objects:,} objects of {len(truth.class_names)} classes; "
            f"{pictures:,} with picture",
        ),
    ]
    for run, path in zip(runs, predictions, strict=True):
        facts.append((run.name, f"{path}, {len(run.analysis.detections.scores):,} detections"))
    return facts
