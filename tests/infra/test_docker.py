"""infra/docker: the Dockerfiles by hadolint, and what it does not see."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from dawnchorus import __version__

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "infra" / "docker"
FILES = sorted(FOLDER.glob("*.Dockerfile"))
HADOLINT = Path(sys.executable).with_name("hadolint")


def _instructions(path: Path) -> list[tuple[str, str]]:
    """(instruction, arguments), continuation lines joined."""
    lines = [x for x in path.read_text(encoding="utf-8").splitlines() if not x.startswith("#")]
    joined = re.sub(r"\\\n\s*", " ", "\n".join(lines))
    return [(k, v) for k, _, v in (x.partition(" ") for x in joined.splitlines() if x.strip())]


def _last_stage(path: Path) -> list[tuple[str, str]]:
    found = _instructions(path)
    return found[max(i for i, (k, _) in enumerate(found) if k == "FROM") :]


def test_there_is_one_for_each() -> None:
    assert [p.name for p in FILES] == ["cpu.Dockerfile", "gpu.Dockerfile"]


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.name)
def test_hadolint_finds_nothing(path: Path) -> None:
    done = subprocess.run([HADOLINT, path], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout


def test_hadolint_would_find_something(tmp_path: Path) -> None:
    bad = tmp_path / "Dockerfile"
    bad.write_text("FROM python\nRUN pip install ray && cd /x\n")
    done = subprocess.run([HADOLINT, bad], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1
    assert {"DL3006", "DL3013", "DL3042"} <= set(re.findall(r"DL\d{4}", done.stdout))


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.name)
def test_image_is_pinned_small_and_unprivileged(path: Path) -> None:
    found = _instructions(path)
    bases = [v for k, v in found if k == "FROM"]
    assert len(bases) == 2, "built in one stage, run in another"
    assert all(re.match(r"docker\.io/library/python:\d+\.\d+\.\d+-\S+", b) for b in bases)
    last = _last_stage(path)
    assert [v for k, v in last if k == "USER"] == ["1000:1000"]
    assert [k for k, _ in last].index("USER") > max(
        i for i, (k, _) in enumerate(last) if k in ("COPY", "RUN")
    )
    assert not [v for k, v in last if k == "RUN" and "pip" in v]
    assert [k for k, _ in last].count("HEALTHCHECK") == 1
    assert all("--no-cache-dir" in v for k, v in found if k == "RUN" and "pip " in v)


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.name)
def test_versions_and_extras_are_the_projects(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    (extras,) = re.findall(r"\$\{wheel\}\[([\w,]+)\]", text)
    assert set(extras.split(",")) <= set(project["optional-dependencies"])
    assert ("nemo" in extras) == (path.name == "gpu.Dockerfile")
    pins = (ROOT / "infra" / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pins += project["optional-dependencies"]["hf"]
    for name, version in re.findall(r"\b(ray|torch|boto3)(?:\[[\w,]+\])?==([\d.]+)", text):
        assert any(re.match(rf"{name}(\[[\w,]+\])?=={re.escape(version)}$", p) for p in pins), name
    assert f":{__version__}" in text


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.name)
def test_what_is_copied_exists_and_is_sent_to_the_builder(path: Path) -> None:
    rules = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    assert "**" in rules, "nothing but what is named"
    sent = [ROOT / r.removeprefix("!") for r in rules if r.startswith("!")]
    assert all(p.exists() for p in sent)
    for arguments in (v for k, v in _instructions(path) if k == "COPY" and "--from" not in v):
        for name in [w for w in shlex.split(arguments) if not w.startswith("--")][:-1]:
            assert (ROOT / name).exists(), name
            assert any((ROOT / name).is_relative_to(p) for p in sent), f"{name} is not sent"


def test_both_end_alike() -> None:
    """What differs between the two is what is installed, and what CUDA needs."""
    cpu, gpu = ([(k, v) for k, v in _last_stage(p) if k != "ENV"] for p in FILES)
    assert cpu == [(k, v.replace(" gcc libc6-dev", "")) for k, v in gpu]


def test_health_is_a_raylet(tmp_path: Path) -> None:
    """The check's own command, where a process of that name lives and where none does."""
    (arguments,) = [v for k, v in _last_stage(FILES[0]) if k == "HEALTHCHECK"]
    command = re.search(r'CMD \["/bin/bash", "-c", "(.*)"\]', arguments)
    assert command is not None
    proc = tmp_path / "proc"
    check = command[1].replace("/proc", str(proc))
    for pid, name in ((7, "bash"), (8, "raylet_not")):
        (proc / str(pid)).mkdir(parents=True)
        (proc / str(pid) / "comm").write_text(f"{name}\n")
    assert subprocess.run(["bash", "-c", check], check=False).returncode == 1
    (proc / "8" / "comm").write_text("raylet\n")
    assert subprocess.run(["bash", "-c", check], check=False).returncode == 0
