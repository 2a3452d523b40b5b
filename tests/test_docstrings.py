"""Docstrings of the package: complete, parseable by a documentation generator, plain English."""

import ast
import builtins
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).resolve().parents[1] / "efpn_d2"
SECTIONS = ("Args", "Attributes", "Returns", "Yields", "Raises", "Example", "Examples")
DANGLING = re.compile(r"(?:^|[.!?]\)?\s+|\n\n)(Of|That|By(?! default\b)|With what|What of)\s")
EXCEPTIONS = {
    n for n, x in vars(builtins).items() if isinstance(x, type) and issubclass(x, Exception)
}


class Item(NamedTuple):
    """A module, class or function."""

    place: str
    name: str
    node: ast.Module | ast.ClassDef | ast.FunctionDef

    @property
    def text(self) -> str:
        """The docstring without indentation."""
        return ast.get_docstring(self.node) or ""


def _walk(node: ast.AST, prefix: str = "") -> Iterator[tuple[str, ast.AST]]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.ClassDef | ast.FunctionDef):
            yield prefix + child.name, child
            yield from _walk(child, f"{prefix}{child.name}.")
        elif isinstance(child, ast.If | ast.Try | ast.With):
            yield from _walk(child, prefix)


def _items(path: Path) -> list[Item]:
    tree = ast.parse(path.read_text())
    place = path.relative_to(ROOT).as_posix()
    return [Item(place, "", tree), *(Item(place, name, node) for name, node in _walk(tree))]


ITEMS = [item for path in sorted(ROOT.rglob("*.py")) for item in _items(path)]


def _is_public(item: Item) -> bool:
    functions = {
        i.name for i in ITEMS if i.place == item.place and isinstance(i.node, ast.FunctionDef)
    }
    parts = item.name.split(".")
    nested = any(".".join(parts[:n]) in functions for n in range(1, len(parts)))
    return not nested and not any(part.startswith("_") for part in parts)


def _section(text: str, name: str) -> list[str]:
    """Entries of a section, each joined to one line."""
    found = re.search(rf"^{name}:\n((?:    .*\n?|\n)*)", text, re.MULTILINE)
    entries: list[str] = []
    for line in found.group(1).splitlines() if found else ():
        if line.startswith("        ") and entries:
            entries[-1] += f" {line.strip()}"
        elif line.strip():
            entries.append(line.strip())
    return entries


def _names(items: list[Item]) -> list[str]:
    return [f"{item.place}: {item.name or 'module'}" for item in items]


def test_every_public_name_has_a_docstring() -> None:
    assert len(ITEMS) > 500
    missing = [i for i in ITEMS if _is_public(i) and not i.text]
    assert _names(missing) == []


def test_sections_have_names_that_a_generator_knows() -> None:
    heading = re.compile(rf"({'|'.join(SECTIONS)})\b.*:")
    wrong = [
        item
        for item in ITEMS
        for line in item.text.splitlines()
        if heading.match(line) and line[:-1] not in SECTIONS
    ]
    assert _names(wrong) == []


def test_raises_name_exception_classes() -> None:
    defined = {item.node.name for item in ITEMS if isinstance(item.node, ast.ClassDef)}
    for item in ITEMS:
        for entry in _section(item.text, "Raises"):
            error, _, reason = entry.partition(": ")
            assert error in EXCEPTIONS | defined and reason, (item.place, item.name, entry)


def test_arguments_are_documented_one_by_one() -> None:
    for item in ITEMS:
        if not isinstance(item.node, ast.FunctionDef):
            continue
        arguments = item.node.args
        known = [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs]
        known += [x for x in (arguments.vararg, arguments.kwarg) if x is not None]
        for entry in _section(item.text, "Args"):
            name, _, meaning = entry.partition(": ")
            assert name in {x.arg for x in known} and meaning, (item.place, item.name, entry)


def test_spelling_is_american() -> None:
    british = re.compile(
        r"data sets?\b|isation|(normal|initial|optim|local)is(e|ed|es|ing)\b|colour|centres?\b|"
        r"behaviour|neighbour|licence|learnt"
    )
    wrong = [i for i in ITEMS if british.search(re.sub("``.*?``", "", i.text.lower()))]
    assert _names(wrong) == []


def test_functions_have_a_one_line_summary() -> None:
    wrong = [
        item
        for item in ITEMS
        if item.text
        and not re.match(r".*\.(\n\n|$)", item.text)
        # The class has the summary of its constructor.
        and not item.name.endswith("__init__")
    ]
    assert _names(wrong) == []


def test_no_sentence_dangles() -> None:
    wrong = [
        item
        for item in ITEMS
        if DANGLING.search(item.text)
        or any(
            re.match(r"\w+: of ", entry)
            for section in ("Args", "Attributes")
            for entry in _section(item.text, section)
        )
    ]
    assert _names(wrong) == []


@pytest.mark.parametrize(
    "text", ["Of all.", "Add. That is all.", "Add.\n\nBy the way.", "Add (so). Of it."]
)
def test_a_dangling_sentence_is_found(text: str) -> None:
    assert DANGLING.search(text)
