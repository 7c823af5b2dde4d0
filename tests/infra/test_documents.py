"""infra/README.md and OPS.md: links, files, options, messages and kinds that they name are there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import surfaces

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "infra"
DOCUMENTS = [FOLDER / "README.md", FOLDER / "OPS.md"]


def _sources() -> str:
    files = [*(ROOT / "pipeline").rglob("*.py"), *FOLDER.rglob("*")]
    return "\n".join(
        p.read_text(encoding="utf-8") for p in files if p.suffix in {".py", ".sh", ".sbatch", ".yaml"}
    )


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda p: p.name)
def test_files_are_there(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)#:]+)\)", text):
        assert (FOLDER / target).exists(), target
    for target in re.findall(r"\b(?:infra|configs|tests)/[\w./-]*\w", text):
        assert (ROOT / target).exists(), target


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda p: p.name)
def test_commands_and_options_are_dawnchoruss(path: Path) -> None:
    known = surfaces.cli_help()
    for line in re.findall(
        r"dawnchorus ((?:--debug )?(?:run|plan|assemble|show|export|doctor)\b[^`\n]*)", path.read_text()
    ):
        for option in re.findall(r"(?<!\S)--[a-z-]+", line):
            assert option in known, line


def test_messages_are_those_the_code_prints() -> None:
    """Of each quoted message, the words between its blanks stand in the code in this order."""
    text = (FOLDER / "OPS.md").read_text(encoding="utf-8")
    table = text.partition("## The run says")[2].partition("## Recordings fail")[0]
    source = re.sub(r'"\s*\n\s*f?"', "", _sources())
    source = re.sub(r"\{[^{}]*\}", "…", source)
    quoted = re.findall(r"^\| `([^`]+)`", table, re.MULTILINE)
    assert len(quoted) >= 10
    for message in quoted:
        words = [w.strip(" .:,") for w in re.split(r"…|: |\b\d+\b|\([\w.]+\)$|GPU|=", message)]
        for piece in words:
            assert piece in source, f"{message!r}: {piece!r}"


def test_kinds_are_those_of_failures() -> None:
    text = (FOLDER / "OPS.md").read_text(encoding="utf-8")
    table = text.partition("## Recordings fail")[2].partition("## Nodes")[0]
    first = "\n".join(re.findall(r"^\| ((?:`\w+`(?:, )?)+)", table, re.MULTILINE))
    kinds = set(re.findall(r"`(\w+)`", first)) - {"failure"}
    assert len(kinds) >= 10
    source = _sources()
    assert not [k for k in kinds if f'"{k}"' not in source]


def test_configuration_keys_are_keys() -> None:
    from dawnchorus.config import config_keys

    known = {k.name for k in config_keys()}
    sections = "|".join(sorted({k.partition(".")[0] for k in known if "." in k}))
    text = "\n".join(p.read_text(encoding="utf-8") for p in DOCUMENTS)
    named = set(re.findall(rf"\b((?:{sections})\.\w+)\b", text))
    assert named
    assert {n for n in named - known if not n.endswith((".yaml", ".json", ".jsonl"))} == set()
