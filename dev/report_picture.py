#!/usr/bin/env python
"""Take a screenshot of a report with one of its images open; requires Chromium or Chrome.

Example:
    report_picture.py --report report/ --image 0 --output docs/assets/report.png
"""

import argparse
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from efpn_d2.utils.tool_support import not_negative, positive

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")


def take_picture(browser: str, address: str, size: tuple[int, int], file: Path) -> None:
    """Write a PNG of a page after its scripts have run."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        command = [browser, "--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"]
        command += [f"--user-data-dir={profile}", f"--window-size={size[0]},{size[1]}"]
        command += ["--virtual-time-budget=10000", f"--screenshot={file}", address]
        subprocess.run(command, check=True, capture_output=True, timeout=300)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--report", type=Path, required=True, help="folder with index.html")
    parser.add_argument(
        "--image", type=not_negative, help="which image to open, by the page's order"
    )
    parser.add_argument(
        "--size", type=positive, nargs=2, default=(1280, 720), help="width and height"
    )
    parser.add_argument("--output", type=Path, required=True, help="a .png file")
    args = parser.parse_args(arguments)
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    if browser is None:
        sys.exit("error: no browser found: apt-get install chromium")
    page = args.report / "index.html"
    if not page.is_file():
        sys.exit(f"error: {page} does not exist: make the report with tools/report.py first.")
    address = page.resolve().as_uri()
    address += "" if args.image is None else f"#image-{args.image}"
    take_picture(browser, address, tuple(args.size), args.output.resolve())
    with Image.open(args.output) as picture:
        picture.convert("RGB").save(args.output, optimize=True)
    print(f"{args.output}: {args.output.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main()
