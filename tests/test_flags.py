"""Every flag that the code can give is explained: in the table of flags, and in the README."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import dawnchorus
from dawnchorus import flags

ROOT = Path(__file__).parent.parent
PACKAGE = Path(dawnchorus.__file__).parent
KNOWN = {*flags.TRANSCRIPT_FLAGS, *flags.ANSWER_FLAGS}
WHERE = ("engines", "audio", "stages/answer.py", "assemble.py", "answering.py", "language.py")
NAMES = re.compile(r"flags?|FLAG|doubts?|kept")
NO_FLAGS = {"flags", "doubts", "failed", "partly"}


def _name(node: ast.AST) -> str:
    """`x` of x, of y.x and of y["x"]."""
    if isinstance(node, ast.Subscript):
        return str(getattr(node.slice, "value", ""))
    return str(getattr(node, "id", getattr(node, "attr", "")))


def _is_of_flags(node: ast.AST) -> bool:
    """Whether what stands in this node is put among flags: assigned, added, given, or joined to them."""
    if isinstance(node, ast.Assign | ast.AugAssign | ast.AnnAssign):
        targets = node.targets if isinstance(node, ast.Assign) else [node.target]
        names = [_name(t) for t in targets]
    elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
        names = [_name(node.func.value)] if node.func.attr in ("add", "append", "update") else []
    elif isinstance(node, ast.keyword):
        names = [node.arg or ""]
    elif isinstance(node, ast.Tuple | ast.Set):
        inner = [n.value for n in node.elts if isinstance(n, ast.Starred)]
        names = [n.attr for n in ast.walk(ast.Module(inner, [])) if isinstance(n, ast.Attribute)]
    else:
        names = []
    return any(NAMES.fullmatch(n) for n in names)


def _words(node: ast.AST) -> Iterator[ast.Constant]:
    """The text constants of a node, without those that look something up or are compared."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Subscript | ast.Compare):
            continue
        if isinstance(child, ast.Constant) and isinstance(child.value, str):
            yield child
        yield from _words(child)


def said_to_be_flags() -> dict[str, str]:
    """Every word that the code puts among flags, and where."""
    found = {}
    for name in WHERE:
        place = PACKAGE / name
        for path in sorted(place.rglob("*.py")) if place.is_dir() else [place]:
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                for word in _words(node) if _is_of_flags(node) else ():
                    found[str(word.value)] = f"{path.name}:{word.lineno}"
    return {w: at for w, at in found.items() if re.fullmatch(r"[a-z]+(_[a-z]+)*", w)}


def test_every_flag_in_the_code_is_in_the_table() -> None:
    said = said_to_be_flags()
    assert {w: at for w, at in said.items() if w not in KNOWN | NO_FLAGS} == {}
    assert KNOWN - set(said) == set(), "flags that nothing gives"


def test_the_readme_has_every_flag_with_its_meaning() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    for name, flag in (flags.TRANSCRIPT_FLAGS | flags.ANSWER_FLAGS).items():
        assert f"`{name}`" in text
        assert flag.meaning in text, name


def test_notes_are_no_doubts() -> None:
    assert {"redone", "split", "repaired"} == flags.NOTES
