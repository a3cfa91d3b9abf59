"""Which program does a model's text hold? Fences, prose, continuations of a prompt, bodies alone, slipped indentation.

Reading is parsing, never running. A program is written in one way (`ast.unparse`), so that two texts which differ in
comments, blank lines or quotes hold one program.
"""

from __future__ import annotations

import ast
import re
import textwrap
import warnings
from collections.abc import Iterator

MAX_TEXT = 20_000  # characters that are read
MAX_STARTS = 40  # places where a program without a fence may begin

_FENCE = re.compile(r"^[ \t]*(?:```|~~~)[^\n`]*\n(.*?)(?:^[ \t]*(?:```|~~~)|\Z)", re.DOTALL | re.MULTILINE)
_CLOSING = re.compile(r"^[ \t]*(?:```|~~~)", re.MULTILINE)
_CODE = re.compile(r"^[ \t]*(?:def|class|import|from|@|async def)\b|^@", re.MULTILINE)


def extract_program(text: str, entry: str, before: str = "") -> str | None:
    """The program that `text` gives for the function `entry`, None where it gives none.

    before: the code that the text may continue: imports, helpers, and the function's signature with its docstring. Its
    imports and helpers stand before every program. Tried in this order: the last fenced block that defines `entry`; the
    text from its first line of code on, as far as it parses; the text as a continuation of `before`, then as the
    function's body with its indentation mended. What is left of an unfinished text is read as it stands. Asserts, calls
    of `print` or of `entry`, and a main guard at the top level are left out, for they only show or check. Total: no
    text raises, and the first 20,000 characters are read.
    """
    text = text[:MAX_TEXT].replace("\r\n", "\n").replace("\t", "    ")
    blocks = [match[1] for match in _FENCE.finditer(text)]
    for block in reversed(blocks):
        if (found := _whole(block, entry, before)) is not None:
            return found
    if (found := _whole(text, entry, before)) is not None:
        return found
    for part in (*reversed(blocks), _opened(text)):
        if (found := _continued(part, entry, before)) is not None:
            return found
    return None


def header(before: str, entry: str) -> str:
    """The imports and helpers of a prompt's code: all of it but the function that is asked for."""
    tree = _parsed(before)
    if tree is None:
        return ""
    return _written([node for node in tree.body if not _defines(node, entry)]) or ""


def _opened(text: str) -> str:
    """What stands before the first fence: a continuation that ends in one ends there."""
    found = _CLOSING.search(text)
    return text[: found.start()] if found else text


def _whole(text: str, entry: str, before: str) -> str | None:
    """The program where the text defines the function itself."""
    dedented = textwrap.dedent(text)
    if not re.search(rf"\b{re.escape(entry)}\b", dedented):
        return None
    for start in _starts(dedented):
        tree = _longest(textwrap.dedent(dedented[start:]))
        if tree is not None and any(_defines(node, entry) for node in tree.body):
            above = _parsed(header(before, entry))
            return _written([*(above.body if above else ()), *_kept(tree, entry)])
    return None


def _continued(text: str, entry: str, before: str) -> str | None:
    """The program where the text goes on from a prompt's signature, with the least mending that makes a body of it."""
    if not before.strip() or not text.strip():
        return None
    lead = before.rstrip() + "\n"
    for body in _indented(text):
        tree = _longest(lead + body)
        function = None if tree is None else next((n for n in reversed(tree.body) if _defines(n, entry)), None)
        if tree is not None and isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef) and _said(function):
            return _written(_kept(tree, entry))
    return None


def _indented(text: str) -> Iterator[str]:
    """A body as it stands; with its first line moved to the others'; all of it moved to one level."""
    body = text.strip("\n").rstrip()
    yield body
    first, _, rest = body.partition("\n")
    others = re.search(r"^( +)\S", rest, re.MULTILINE)
    if others:
        yield f"{others[1]}{first.strip()}\n{rest}"
    yield textwrap.indent(textwrap.dedent(body), "    ")
    yield textwrap.indent(f"{first.strip()}\n{textwrap.dedent(rest)}", "    ")


def _starts(text: str) -> Iterator[int]:
    yield 0
    for count, match in enumerate(_CODE.finditer(text)):
        if count == MAX_STARTS:
            return
        if match.start() > 0:
            yield match.start()


def _parsed(text: str) -> ast.Module | None:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a model's odd escapes are not the reader's concern
            return ast.parse(text)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None


def _longest(text: str) -> ast.Module | None:
    """The longest run of first lines that parses to something; None where no line does."""
    lines = text.split("\n")
    while lines:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                tree = ast.parse("\n".join(lines))
            return tree if tree.body else None
        except SyntaxError as error:  # its line is where the parser gave up: nothing longer can be right
            lines = lines[: max(0, min((error.lineno or 1) - 1, len(lines) - 1))]
        except (ValueError, RecursionError, MemoryError):
            return None
    return None


def _defines(node: ast.stmt, entry: str) -> bool:
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
        return node.name == entry
    if isinstance(node, ast.Assign):
        return any(isinstance(target, ast.Name) and target.id == entry for target in node.targets)
    return False


def _said(function: ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    """Whether a function has more than a docstring."""
    first = function.body[0]
    documented = isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant)
    return len(function.body) > int(documented)


def _kept(tree: ast.Module, entry: str) -> list[ast.stmt]:
    return [node for node in tree.body if not _shows(node, entry)]


def _shows(node: ast.stmt, entry: str) -> bool:
    """Whether a statement of the top level only shows or checks what the program does."""
    if isinstance(node, ast.Assert):
        return True
    if isinstance(node, ast.AnnAssign) and node.value is None:  # a word and a colon, which was prose
        return True
    if isinstance(node, ast.If):
        return any(isinstance(n, ast.Name) and n.id == "__name__" for n in ast.walk(node.test))
    if not isinstance(node, ast.Expr):
        return False
    if not isinstance(node.value, ast.Call):  # a word of prose, or a text: it does nothing
        return True
    return isinstance(node.value.func, ast.Name) and node.value.func.id in ("print", entry)


def _written(body: list[ast.stmt]) -> str | None:
    try:
        return ast.unparse(ast.Module(body, []))
    except (ValueError, RecursionError):
        return None
