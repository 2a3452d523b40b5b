import sys

import pytest
import render
from rendering.pages import fill_blocks

pytestmark = pytest.mark.fast


@pytest.mark.parametrize("name", render.DOCUMENTS)
def test_what_is_committed_is_what_is_rendered_now(name):
    assert (render.ROOT / name).read_text() == render.render(name)


def test_blocks_are_replaced_between_their_comments():
    page = "a\n<!-- x:begin -->\nold\n<!-- x:end -->\nb"
    text = page.replace("old", "new")
    assert fill_blocks(page, {"x": lambda: "new"}) == text


def test_a_page_without_the_comments_is_refused():
    with pytest.raises(ValueError, match="noise:begin"):
        fill_blocks("nothing", {"noise": lambda: "table"})


def test_the_check_names_what_is_stale_and_writes_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["render.py", "--check"])
    monkeypatch.setattr(render, "ROOT", tmp_path)
    monkeypatch.setattr(render, "DOCUMENTS", ("a.md", "b.md"))
    monkeypatch.setattr(render, "render", lambda name, figures=None: "new")
    (tmp_path / "a.md").write_text("new")
    (tmp_path / "b.md").write_text("old")
    with pytest.raises(SystemExit, match="^b.md: run benchmarks/render.py"):
        render.main()
    assert (tmp_path / "b.md").read_text() == "old"
