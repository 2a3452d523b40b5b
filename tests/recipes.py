"""The recipes of docs/extending.md as they are written."""

import re
from pathlib import Path

PAGE = Path(__file__).resolve().parent.parent / "docs" / "extending.md"


def recipe(section: str) -> str:
    """The block of Python in a section of the page."""
    text = PAGE.read_text().split(f"\n## {section}\n")[1].split("\n## ")[0]
    (block,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    return block
