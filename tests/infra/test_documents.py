"""infra/README.md and OPS.md: links, files, options, messages and kinds that they name are there."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from sandbox import enclosed

import kit
import surfaces

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "infra"
GUIDE = FOLDER / "README.md"
DOCUMENTS = [GUIDE, FOLDER / "OPS.md"]


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
    text = path.read_text(encoding="utf-8")
    options = surfaces.options()
    named = [m.groups() for m in re.finditer(r"(?<![-/\w\[])dawnchorus ([a-z]+)\b([^`#|>;&\n]*)", text)]
    found = [(command, rest) for command, rest in named if command in options]
    assert {"status", "stop", "logs", "list", "show"} <= {command for command, _ in found}
    for command, rest in found:
        for option in re.findall(r"(?<!\S)--[a-z-]+", rest):
            assert option in options[command], f"dawnchorus {command}{rest}"


def test_rays_commands_and_options_are_rays() -> None:
    from ray.scripts.scripts import cli

    lines = re.findall(
        r"(?<![\w-])ray ((?:up|down|exec|start|stop|dashboard|job) [^`#\n]*)", GUIDE.read_text()
    )
    assert len(lines) >= 6
    for line in lines:
        words = line.replace("'", " ").split()
        known = {o for p in cli.commands[words[0]].params for o in (*p.opts, *p.secondary_opts)}
        assert {w for w in words if w.startswith("--")} <= known, line


def test_every_road_says_what_it_needs_how_to_look_to_stop_and_what_is_left() -> None:
    text = GUIDE.read_text(encoding="utf-8")
    table = text.partition("## From the laptop")[0]
    roads = re.findall(r"\| \[([\w ]+)\]\(#[\w-]+\) \|", table)
    assert len(roads) == 6
    for road in roads:
        told = re.split(
            r"^## ", text.partition(f"\n## {road[0].upper()}{road[1:]}\n")[2], flags=re.MULTILINE
        )[0]
        for needed in ("Needs ", "dawnchorus status", "dawnchorus stop", "dawnchorus s"):
            assert needed in told, f"{road}: {needed}"


def _road(title: str) -> str:
    """The first commands of a road."""
    return GUIDE.read_text(encoding="utf-8").partition(f"## {title}")[2].split("```")[1]


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_the_road_over_machines_of_ones_own(tmp_path: Path) -> None:
    """Its commands as they stand, but for what installs and what tunnels: head and laptop are one machine
    here, the engine is the fake one, and a shared folder stands for the bucket."""
    audio, output = kit.archive(tmp_path / "audio", [4.0, 6.0], seed=7), tmp_path / "out"
    left_out = ("python3 -m venv", "~/dawnchorus/bin/pip", "export LD_LIBRARY_PATH", "ssh ")
    kept = [line for line in _road("Machines of your own").splitlines() if not line.startswith(left_out)]
    script = "\n".join(["set -e", *kept]).replace("CHANGE", "0123456789abcdef" * 4)
    with tempfile.TemporaryDirectory(dir="/tmp", prefix="dc-") as scratch:
        for told, here in (
            ("~/dawnchorus/bin/ray start --head", f"ray start --head --num-cpus 3 --temp-dir {scratch}"),
            (
                "~/dawnchorus/bin/ray start --address HEAD:6379",
                "ray start --address 127.0.0.1:6379 --num-cpus 1",
            ),
            ("~/dawnchorus/bin/", ""),
            ("--dashboard-host", "--node-ip-address 127.0.0.1 --dashboard-host"),
            ("submit configs/podcasts_s3.yaml", f'submit --engine fake -i {audio} -o "$OUT" --shared-paths'),
            ("s3://my-bucket/transcripts/podcasts", '"$OUT"'),
        ):
            assert told in script, told
            script = script.replace(told, here)
        env = {
            **os.environ,
            "OUT": str(output),
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        }
        done = subprocess.run(
            enclosed("bash", "-c", script), capture_output=True, text=True, env=env, cwd=ROOT, check=False
        )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "2 recordings" in done.stdout
    assert re.search(r"has ended: .*recordings are accounted for", done.stdout), done.stdout


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
