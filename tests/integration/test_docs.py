"""The docs cannot drift: their code runs, their links lead somewhere, and made pages are current.

Every block marked `python` in README.md and docs/ runs, in order, in one namespace a page and in an empty folder. A
block marked `output` straight after one is what it prints. `<!-- skip: the reason -->` on the line above a block leaves
it out. A page with the line `<!-- after: tutorial.md -->` goes on with the names which that page has defined.
"""

from __future__ import annotations

import contextlib
import importlib.util
import io
import re
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from anystep import search, verify
from anystep.language.accelerate.advantage import advantage_router
from anystep.solve import engine_for

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
FENCE = re.compile(
    r"^(?:<!-- skip(?P<skip>.*?)-->\n)?```(?P<language>\w*)[^\n]*\n(?P<code>.*?)^```$", re.MULTILINE | re.DOTALL
)


@dataclass(frozen=True)
class Block:
    """A fenced block: its language, its text, the line its text starts on, and why it is skipped, if it is."""

    language: str
    code: str
    line: int
    skip: str | None


def blocks(text: str) -> list[Block]:
    found = FENCE.finditer(text)
    return [Block(m["language"], m["code"], text.count("\n", 0, m.start("code")), m["skip"]) for m in found]


AFTER = re.compile(r"^<!-- after: (\S+) -->$", re.MULTILINE)


def run_page(name: str, text: str, before: Mapping[str, Any] | None = None) -> ModuleType:
    """Run a page's Python blocks in one module, compare what they print, and return the module."""
    module = ModuleType(f"page_{re.sub(r'[^a-z0-9]', '_', name.lower())}")
    module.__dict__.update({k: v for k, v in (before or {}).items() if not k.startswith("__")})
    sys.modules[module.__name__] = module  # dataclasses look their module up
    every = blocks(text)
    for block, following in zip(every, [*every[1:], None], strict=True):
        if block.language != "python" or block.skip is not None:
            continue
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            # Padded, so that a traceback points at the line of the page.
            exec(compile("\n" * block.line + block.code, name, "exec"), module.__dict__)
        if following is not None and following.language == "output":
            assert printed.getvalue().strip() == following.code.strip(), f"{name}, line {following.line}"
    return module


def forget() -> None:
    """Empty the prefix caches that pages share, so that no page's costs depend on what ran before it."""
    for model in ("chainlm-2m", "chainlm-300k"):
        engine_for(model).cache.trim(0)
    verify.chain_steps().forget()
    advantage_router().forget()


@cache
def run_file(page: Path) -> ModuleType:
    """Run a page once, after the page it goes on from, if it names one."""
    text = page.read_text()
    found = AFTER.search(text)
    before = vars(run_file((page.parent / found[1]).resolve())) if found else None
    forget()
    return run_page(page_id(page), text, before)


def page_id(page: Path) -> str:
    return str(page.relative_to(ROOT))


@pytest.fixture(autouse=True)
def empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Pages run where they can leave nothing behind."""
    monkeypatch.chdir(tmp_path)
    yield


WITH_CODE = [page for page in PAGES if any(b.language == "python" for b in blocks(page.read_text()))]


@pytest.mark.parametrize("page", WITH_CODE, ids=page_id)
def test_a_page_s_examples_run(page: Path) -> None:
    run_file(page)


@pytest.mark.parametrize("page", PAGES, ids=page_id)
def test_a_skipped_block_says_why(page: Path) -> None:
    for block in blocks(page.read_text()):
        assert block.skip is None or len(block.skip.strip(": ")) > 10, f"line {block.line}: <!-- skip: the reason -->"


@pytest.mark.parametrize("page", PAGES, ids=page_id)
def test_a_page_s_links_lead_somewhere(page: Path) -> None:
    prose = FENCE.sub("", page.read_text())
    for target in re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", prose):
        if "://" not in target:
            assert (page.parent / target).exists(), f"{page_id(page)} links to {target}"


def test_pages_made_from_data_are_current() -> None:
    spec = importlib.util.spec_from_file_location("pages", ROOT / "tools" / "pages.py")
    assert spec is not None and spec.loader is not None
    pages = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(pages)
    assert pages.PAGE.read_text() == pages.render(), "run `make docs`"


def test_blocks_share_a_namespace_and_outputs_are_compared() -> None:
    page = "# A page\n\n```python\nx = 2\n```\n\nthen\n\n```python\nprint(x + 1)\n```\n\n```output\n3\n```\n"
    assert run_page("a page", page).x == 2
    with pytest.raises(AssertionError, match="a page, line 13"):
        run_page("a page", page.replace("\n3\n", "\n4\n"))


def test_a_page_may_go_on_from_another() -> None:
    first = run_page("one", "```python\ndef double(x):\n    return 2 * x\n```\n")
    second = run_page("two", "```python\nfour = double(2)\n```\n", vars(first))
    assert second.four == 4 and not hasattr(first, "four")
    assert AFTER.findall("# A page\n\n<!-- after: ../tutorial.md -->\n") == ["../tutorial.md"]


def test_an_error_points_at_the_line_of_the_page() -> None:
    with pytest.raises(ZeroDivisionError) as caught:
        run_page("a page", "# A page\n\n```python\nx = 0\n1 / x\n```\n")
    assert (caught.traceback[-1].path, caught.traceback[-1].lineno + 1) == ("a page", 5)


def test_a_block_may_be_skipped_and_other_languages_do_not_run() -> None:
    page = "<!-- skip: needs an endpoint -->\n```python\n1 / 0\n```\n\n```bash\nfalse\n```\n"
    run_page("a page", page)
    assert [block.skip for block in blocks(page)] == [": needs an endpoint ", None]


def test_every_method_has_a_page_and_the_index_names_it() -> None:
    index = (ROOT / "docs" / "index.md").read_text()
    makers = {name: getattr(search, name) for name in search.__all__}
    methods = [n for n, maker in makers.items() if getattr(maker, "__annotations__", {}).get("return") == "Exploring"]
    assert {"sample", "particle_filter"} <= set(methods)
    for name in methods:
        page = (ROOT / "docs" / "methods" / f"{name}.md").read_text()
        assert f"[{name}](methods/{name}.md)" in index and f"search.{name}(" in page
        assert "**Preserves**" in page and "**Do not**" in page
