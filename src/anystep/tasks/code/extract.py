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
_INDENT = re.compile(r"^[ \t]+", re.MULTILINE)
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
    text = text[:MAX_TEXT].removeprefix("\ufeff").replace("\r\n", "\n")
    text = _INDENT.sub(lambda found: found[0].replace("\t", "    "), text)  # a tab within a line may be in a text
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
        tree, _ = _longest(textwrap.dedent(dedented[start:]))
        if any(_defines(node, entry) for node in tree.body):
            own = _kept(tree, entry)
            there = {ast.dump(node) for node in own}
            above = _parsed(header(before, entry))
            return _written([*(node for node in (above.body if above else ()) if ast.dump(node) not in there), *own])
    return None


def _continued(text: str, entry: str, before: str) -> str | None:
    """The program where the text goes on from a prompt's signature, with the mending that keeps most of its lines."""
    if not before.strip() or not text.strip():
        return None
    lead = before.rstrip() + "\n"
    best, most = None, 0
    for body in _indented(text):
        tree, lines = _longest(lead + body)
        function = next((n for n in reversed(tree.body) if _defines(n, entry)), None)
        if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef) and _does(function) and lines > most:
            best, most = tree, lines
    return None if best is None else _written(_kept(best, entry))


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


def _longest(text: str) -> tuple[ast.Module, int]:
    """The longest run of first lines that parses, and how many they are; an empty module where none does."""
    lines = text.split("\n")
    while lines:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                return ast.parse("\n".join(lines)), len(lines)
        except SyntaxError as error:  # its line is where the parser gave up: nothing longer can be right
            lines = lines[: max(0, min((error.lineno or 1) - 1, len(lines) - 1))]
        except (ValueError, RecursionError, MemoryError):
            break
    return ast.Module([], []), 0


def _defines(node: ast.stmt, entry: str) -> bool:
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
        return node.name == entry
    if isinstance(node, ast.Assign):
        return any(isinstance(target, ast.Name) and target.id == entry for target in node.targets)
    return False


def _does(function: ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    """Whether a function does more than document itself, define and name things, as prose put into a body would."""
    idle = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef | ast.Import | ast.ImportFrom
    return any(not isinstance(node, idle) and not _is_words(node) for node in function.body)


def _kept(tree: ast.Module, entry: str) -> list[ast.stmt]:
    return [node for node in tree.body if not _shows(node, entry)]


def _shows(node: ast.stmt, entry: str) -> bool:
    """Whether a statement of the top level only shows or checks what the program does."""
    if isinstance(node, ast.Assert) or _is_words(node):
        return True
    if isinstance(node, ast.If):
        return any(isinstance(n, ast.Name) and n.id == "__name__" for n in ast.walk(node.test))
    called = node.value.func if isinstance(node, ast.Expr) and isinstance(node.value, ast.Call) else None
    return isinstance(called, ast.Name) and called.id in ("print", entry)


def _is_words(node: ast.stmt) -> bool:
    """Whether a statement does nothing, as a word of prose, a text or `Answer: x` does."""
    if isinstance(node, ast.AnnAssign):
        return node.value is None
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant | ast.Name | ast.Tuple | ast.Compare)


def _written(body: list[ast.stmt]) -> str | None:
    try:
        return ast.unparse(ast.Module(body, []))
    except (ValueError, RecursionError):
        return None
