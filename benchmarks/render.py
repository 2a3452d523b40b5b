#!/usr/bin/env python
"""Write RESULTS.md, and the tables of README.md and docs/, from the records in results/.

benchmarks/render.py
benchmarks/render.py --check
"""

import argparse
import sys
from pathlib import Path

from records import RESULTS, load_records
from rendering.pages import PAGES, fill_blocks
from rendering.results import fill

ROOT = RESULTS.parents[1]
RESULTS_PAGE = "benchmarks/RESULTS.md"
DOCUMENTS = (RESULTS_PAGE, *PAGES)


def render(name: str, figures: Path | None = None) -> str:
    """One of ``DOCUMENTS`` as it should be.

    Args:
        name: its path below the root of the repository.
        figures: the folder that its figures are written to; None: they are not.
    """
    if name == RESULTS_PAGE:
        template = RESULTS.parent / "RESULTS.template.md"
        return fill(template.read_text(), load_records(), figures)
    return fill_blocks((ROOT / name).read_text(), PAGES[name])


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--check", action="store_true", help="only say what is not up to date")
    args = parser.parse_args()
    if args.check:
        stale = [name for name in DOCUMENTS if (ROOT / name).read_text() != render(name)]
        if stale:
            sys.exit(f"{', '.join(stale)}: run benchmarks/render.py and commit what it writes.")
        return
    for name in DOCUMENTS:
        (ROOT / name).write_text(render(name, RESULTS))


if __name__ == "__main__":
    main()
