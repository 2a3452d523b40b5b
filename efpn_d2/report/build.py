"""Write a report from result files."""

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
from efpn_d2.report.rules import REPORT_RULES, ReportRules
from efpn_d2.report.run import Evaluated, Run, load_run
from efpn_d2.report.summary import kind_names, summarize
from efpn_d2.utils.tool_support import error_text

logger = logging.getLogger(__name__)

_MANIFEST = "report_files.json"


@dataclass(frozen=True)
class ReportOptions:
    """Options of a report.

    Attributes:
        title: heading of the page; None: the name of the dataset.
        rules: rules of its numbers.
        threshold: minimum score of detections in counts and pictures; None: the threshold of each
            run's highest F1.
        backend: library that computes AP and AR, or "auto".
        max_images: number of pictures to include, starting with the worst images; the boxes of the
            other images are shown without a picture.
        max_side: longest side of a picture in pixels; larger ones are downscaled.
        names: names of the runs on the page; empty: derived from their files.
        evaluations: for each run, the ``evaluation_<dataset>.json`` of its evaluator, for numbers
            by protocols other than COCO's; empty: none are shown.
    """

    title: str | None = None
    rules: ReportRules = field(default_factory=lambda: REPORT_RULES["small"])
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
    evaluated: Evaluated | None = None,
) -> Path:
    """Write ``index.html`` and the files it shows.

    Args:
        predictions: one file of COCO results, or two to compare.
        annotations: COCO JSON of the dataset.
        image_root: folder to which the file names in the JSON are relative.
        output: folder of the report: new, empty, or with an earlier report, which is replaced.
        options: see :class:`ReportOptions`.
        evaluated: ground truth and result of an evaluator for a single run, instead of reading
            ``annotations`` and computing AP.

    Returns:
        Path of the page.

    Raises:
        FileNotFoundError: if pictures are included but the image folder does not exist.
        ValueError: if there are not one or two runs, a file does not match, or ``output`` holds
            other files; the message says which.
        OSError: if a file cannot be read or the folder cannot be written.
    """
    options = options or ReportOptions()
    _check_arguments(predictions, annotations, image_root, options, evaluated)
    start = time.perf_counter()
    if evaluated is None:
        evaluated = Evaluated(load_ground_truth(annotations, options.rules.coco.ignore_fields))
    truth = evaluated.truth
    if not truth.images:
        raise ValueError(f"{annotations} has no images to report on.")
    evaluations = [_read_evaluation(path) for path in options.evaluations]
    runs = _load_runs(predictions, options, evaluated)
    output = Path(output)
    others = _claim(output)
    index = gallery_index(runs, options.rules)
    missing = _write_pictures(index, truth, Path(image_root), output, options)
    write_boxes(runs, index, output / "boxes")
    data = {
        **summarize(runs, options.rules),
        "kinds": kind_names(),
        "chunk": CHUNK,
        "images": [{k: v for k, v in entry.items() if k != "image"} for entry in index],
    }
    title = options.title or f"Detections on {Path(annotations).stem}"
    facts = _facts(runs, predictions, annotations, len(index) - missing)
    page = build_page(runs, options.rules, data, title=title, facts=facts, evaluations=evaluations)
    (output / "index.html").write_text(page, encoding="utf-8")
    _note_files(output, others)
    logger.info(f"Wrote {output / 'index.html'} in {time.perf_counter() - start:.1f} s.")
    return output / "index.html"


def _load_runs(
    predictions: Sequence[str | Path], options: ReportOptions, evaluated: Evaluated
) -> list[Run]:
    names = list(options.names) or run_names(predictions)
    return [
        load_run(
            name,
            path,
            evaluated.truth,
            options.rules,
            options.threshold,
            options.backend,
            evaluated.result,
        )
        for name, path in zip(names, predictions, strict=True)
    ]


def _check_arguments(
    predictions: Sequence[str | Path],
    annotations: str | Path,
    image_root: str | Path,
    options: ReportOptions,
    evaluated: Evaluated | None,
) -> None:
    if len(predictions) not in (1, 2):
        raise ValueError(
            f"A report needs one or two files of results, but {len(predictions)} were given."
        )
    for what, given in (("names", options.names), ("evaluations", options.evaluations)):
        if given and len(given) != len(predictions):
            raise ValueError(f"{len(given)} {what} were given for {len(predictions)} run(s).")
    if evaluated is not None and len(predictions) != 1:
        raise ValueError("'evaluated' is for a report on one run, but there are two.")
    if options.max_images and not Path(image_root).is_dir():
        raise FileNotFoundError(
            f"The image folder '{image_root}' does not exist: use the folder to which the file "
            f"names in {annotations} are relative, or 0 pictures."
        )


def run_names(predictions: Sequence[str | Path]) -> list[str]:
    """Derive short names from result files: the parts in which their paths differ."""
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
            f"{path} is not a file of an evaluator: it needs 'rules' and 'results' "
            f"({type(error).__name__}: {error})."
        ) from error


def _claim(output: Path) -> set[Path]:
    """Create the folder, or delete the files of an earlier report from it, by its manifest.

    Returns:
        The remaining files, which are not part of the report.

    Raises:
        ValueError: if the folder has files but no manifest.
    """
    manifest = output / _MANIFEST
    if manifest.exists():
        for name in json.loads(manifest.read_text(encoding="utf-8")):
            (output / name).unlink(missing_ok=True)
    elif output.is_dir() and any(output.iterdir()):
        raise ValueError(
            f"'{output}' holds files that are not of a report: choose a new or an empty folder."
        )
    output.mkdir(parents=True, exist_ok=True)
    manifest.write_text("[]", encoding="utf-8")  # an interrupted report can be repeated
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
    """Add pictures to the first entries of the index; return the number of images without one."""
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
            f"The report has no pictures: no image of the dataset could be read below "
            f"'{image_root}', which must be the folder to which its file names are relative; the "
            f"first: {failures[0]}"
        )
    elif failures:
        images = "1 image" if len(failures) == 1 else f"{len(failures)} images"
        logger.warning(
            f"{images} could not be read and will have no picture in the report; the first: "
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
        ("Dataset", str(annotations)),
        (
            "Images",
            f"{len(truth.images):,} with {objects:,} objects of {len(truth.class_names)} classes; "
            f"{pictures:,} with picture",
        ),
    ]
    for run, path in zip(runs, predictions, strict=True):
        facts.append((run.name, f"{path}, {len(run.analysis.detections.scores):,} detections"))
    return facts
