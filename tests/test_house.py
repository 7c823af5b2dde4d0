"""The house rules: layout, light imports, frozen surfaces, generated and quoted files, the sample archive."""

from __future__ import annotations

import ast
import importlib.util
import itertools
import json
import re
import runpy
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

import jsonschema
import pytest
import yaml
from packaging.requirements import Requirement

import surfaces
from dawnchorus import config

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "pipeline" / "dawnchorus"
SAMPLE = ROOT / "tests" / "data" / "sample"
MODULES = sorted([*PACKAGE.rglob("*.py"), *(ROOT / "jobs").rglob("*.py")])
CONFIGS = sorted((ROOT / "configs").glob("*.yaml"))

MODULE_LINES = 300
FUNCTION_LINES = 60
SWALLOWERS: set[str] = set()
"""Modules with an `except Exception` that raises nothing again: the row guards."""
HEAVY = {
    "av",
    "ctranslate2",
    "faster_whisper",
    "nemo",
    "onnxruntime",
    "pandas",
    "ray",
    "s3fs",
    "soundfile",
    "soxr",
    "torch",
}
"""Never imported by the package itself or by a command that does not need it."""


def _name(path: Path) -> str:
    return str(path.relative_to(PACKAGE)) if path.is_relative_to(PACKAGE) else str(path.relative_to(ROOT))


def _functions(path: Path) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


def test_there_is_a_package_to_check() -> None:
    assert len(MODULES) > 10


@pytest.mark.parametrize("path", MODULES, ids=_name)
def test_module_is_small_and_says_what_it_is(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    num_lines = len(text.splitlines())
    assert num_lines <= MODULE_LINES
    long = {f.name: n for f in _functions(path) if (n := (f.end_lineno or 0) - f.lineno + 1) > FUNCTION_LINES}
    assert not long
    assert ast.get_docstring(ast.parse(text)), "a module opens with what it is and what it does not know"


def test_no_except_hides_a_bug() -> None:
    """A handler for everything raises again what it does not know; those that do not are named."""
    assert {_name(path) for path in MODULES if any(_swallows(h) for h in _handlers(path))} == SWALLOWERS


def _handlers(path: Path) -> Iterator[ast.ExceptHandler]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ExceptHandler):
            yield node


def _swallows(handler: ast.ExceptHandler) -> bool:
    caught = handler.type.elts if isinstance(handler.type, ast.Tuple) else [handler.type]
    names = {c.id if isinstance(c, ast.Name) else "" if c is None else ast.dump(c) for c in caught}
    raises = any(isinstance(node, ast.Raise) for node in ast.walk(handler))
    return not names.isdisjoint({"", "Exception", "BaseException"}) and not raises


@pytest.mark.parametrize(
    "module", ["dawnchorus", "dawnchorus.config", "dawnchorus.engines", "dawnchorus.cli"]
)
def test_import_is_light(module: str) -> None:
    show = f"import {module}, sys; print(*{{name.partition('.')[0] for name in sys.modules}})"
    done = subprocess.run([sys.executable, "-c", show], capture_output=True, text=True, check=True)
    assert HEAVY.isdisjoint(done.stdout.split())


@pytest.mark.parametrize("name", ["schemas", "config_keys", "cli_help"])
def test_surface_is_frozen(name: str) -> None:
    frozen = surfaces.FROZEN / f"{name}.txt"
    assert getattr(surfaces, name)() == frozen.read_text(encoding="utf-8"), "meant? then: make freeze"


def test_generated_files_are_current() -> None:
    outputs = runpy.run_path(str(ROOT / "configs" / "generate.py"))["outputs"]()
    for path, text in outputs.items():
        assert path.read_text(encoding="utf-8") == text, f"{path.name} is old: make freeze"


def test_every_config_key_is_classified_and_documented() -> None:
    unit_of_ending = {"seconds": "s", "bytes": "bytes", "share": "share"}
    for key in config.config_keys():
        assert key.doc.endswith((".", ")")), key.name
        assert isinstance(key.fingerprint, bool)
        ending = key.name.rpartition("_")[2].rpartition(".")[2]
        assert key.unit == unit_of_ending.get(ending, key.unit), key.name


@pytest.mark.parametrize("path", CONFIGS, ids=lambda p: p.name)
def test_configuration_loads(path: Path) -> None:
    assert config.load(str(path)).input
    text = path.read_text(encoding="utf-8")
    assert text.startswith("# yaml-language-server: $schema=dawnchorus.schema.json\n")
    schema = json.loads((ROOT / "configs" / "dawnchorus.schema.json").read_text(encoding="utf-8"))
    jsonschema.validate(yaml.safe_load(text), schema)


def test_schema_file_refuses_an_unknown_key() -> None:
    schema = json.loads((ROOT / "configs" / "dawnchorus.schema.json").read_text(encoding="utf-8"))
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({"input": "a", "output": "b", "engine": {"modle": "c"}}, schema)


def test_every_dependency_is_pinned_and_no_build_of_torch() -> None:
    """infra/constraints.txt holds one exact version of everything that gets installed."""
    lines = (ROOT / "infra" / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pins = {_canonical(p.name): p for line in lines if not line.startswith("#") for p in [Requirement(line)]}
    assert all(re.fullmatch(r"==[^*]+", str(p.specifier)) for p in pins.values())
    assert "+" not in str(pins["torch"].specifier), "with a GPU it is another build of the same version"
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]
    named = (r for extra in ("dev", "whisper", "nemo", "hf") for r in extras[extra])
    wanted = [Requirement(x) for x in (*project["dependencies"], *named)]
    for requirement in wanted:
        if requirement.name != project["name"]:
            pin = str(pins[_canonical(requirement.name)].specifier).removeprefix("==")
            assert requirement.specifier.contains(pin), f"{requirement} is not met by {pin}: make lock"


def test_what_is_imported_is_declared() -> None:
    """A package that only another one brings along may be gone with that one's next version."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    wanted = (*project["dependencies"], *itertools.chain(*project["optional-dependencies"].values()))
    declared = {_canonical(Requirement(w).name) for w in wanted}
    imported = {name for path in MODULES for name in _imports(path)} - sys.stdlib_module_names
    sources = metadata.packages_distributions()
    undeclared = {name for name in imported if declared.isdisjoint(map(_canonical, sources.get(name, ())))}
    assert not undeclared


def _imports(path: Path) -> Iterator[str]:
    """First names of what a module imports, wherever in it."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module is not None:
            yield node.module.partition(".")[0]


def _canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def test_package_version_is_the_installed_one() -> None:
    import dawnchorus

    assert metadata.version("dawnchorus") == dawnchorus.__version__


def test_documents_name_only_what_exists() -> None:
    """Every `make target` and every file path in the documents and the Makefile is there."""
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for target in re.findall(r"[\w./-]+\.(?:py|toml|txt|yaml)", makefile):
        assert (ROOT / target).exists() or target.startswith("build/"), f"Makefile: {target}"
    targets = set(re.findall(r"^([a-z-]+):", makefile, re.MULTILINE))
    for name in ("README.md", "CONTRIBUTING.md"):
        text = (ROOT / name).read_text(encoding="utf-8")
        assert set(re.findall(r"(?:`|^)make ([a-z-]+)", text, re.MULTILINE)) <= targets
        for target in re.findall(r"\]\(([^)#:]+)\)", text):
            assert (ROOT / target).exists(), f"{name}: {target}"


def test_readme_names_the_commands_and_exit_codes_there_are() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    commands = set(re.findall(r"^dawnchorus (\w+)$", surfaces.cli_help(), re.MULTILINE))
    assert set(re.findall(r"dawnchorus (\w+)[` ]", readme)) == commands
    options = set(re.findall(r"--[a-z-]+", surfaces.cli_help()))
    assert set(re.findall(r"(--[a-z][a-z-]+)", readme)) <= options
    tree = ast.parse((PACKAGE / "outcome.py").read_text(encoding="utf-8"))
    [codes] = [n for n in tree.body if isinstance(n, ast.ClassDef) and n.name == "Exit"]
    values = {
        n.value.value for n in codes.body if isinstance(n, ast.Assign) and isinstance(n.value, ast.Constant)
    }
    assert {int(code) for code in re.findall(r"^\| (\d+) \|", readme, re.MULTILINE)} == values


def test_job_is_the_command() -> None:
    words = [sys.executable, str(ROOT / "jobs" / "run.py"), "configs/no-such.yaml"]
    done = subprocess.run(words, capture_output=True, text=True)
    assert done.returncode == 2
    assert "There is no configuration file" in done.stderr


def test_readme_quotes_the_chain_of_the_graph() -> None:
    """The chain in the README is the code of graph.py, line by line."""
    [quoted] = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.DOTALL)
    code = [line.strip() for line in (PACKAGE / "graph.py").read_text(encoding="utf-8").splitlines()]
    lines = [line.strip() for line in quoted.splitlines()]
    start = code.index(lines[0])
    assert code[start : start + len(lines)] == lines


def test_sample_archive_is_small_and_says_what_it_is() -> None:
    files = [f for f in SAMPLE.rglob("*") if f.is_file()]
    assert sum(f.stat().st_size for f in files) < 3_000_000
    assert "synthetic" in (SAMPLE / "README.md").read_text(encoding="utf-8")
    rows = [json.loads(line) for line in (SAMPLE / "manifest.jsonl").read_text(encoding="utf-8").splitlines()]
    named = {row["audio_filepath"] for row in rows}
    there = {str(f.relative_to(SAMPLE)) for f in files if f.is_relative_to(SAMPLE / "audio")}
    assert named - there == {"audio/broken/never-uploaded.flac"}
    assert there <= named
    assert all("synthetic" in row.get("speaker", "synthetic") for row in rows)


def test_sample_references_are_what_the_voices_said() -> None:
    script = yaml.safe_load((SAMPLE.parent / "sample_script.yaml").read_text(encoding="utf-8"))
    rows = [json.loads(line) for line in (SAMPLE / "manifest.jsonl").read_text(encoding="utf-8").splitlines()]
    said = [
        text
        for entry in script
        for text in entry.get("slices")
        or [" ".join(entry.get("paragraphs") or [turn for _, turn in entry.get("turns", [])])]
    ]
    assert [row.get("text", "") for row in rows] == said


def test_installed_cli_is_this_package() -> None:
    [command] = metadata.entry_points(group="console_scripts", name="dawnchorus")
    assert command.value == "dawnchorus.cli:main"
    assert importlib.util.find_spec("dawnchorus") is not None
