"""What ruff has no rule for."""

import ast
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1] / "efpn_d2"


def _exports(path: Path) -> bool:
    tree = ast.parse(path.read_text())
    names = [t for node in tree.body if isinstance(node, ast.Assign) for t in node.targets]
    return any(isinstance(t, ast.Name) and t.id == "__all__" for t in names)


def test_only_packages_list_their_public_names():
    assert [p for p in ROOT.rglob("*.py") if _exports(p) and p.name != "__init__.py"] == []
    packages = [p for p in ROOT.rglob("__init__.py") if "import" in p.read_text()]
    assert [p for p in packages if not _exports(p)] == []
