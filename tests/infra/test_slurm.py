"""infra/slurm: the batch script by shellcheck, its directives, and real runs of it without Slurm.

Two "nodes" are two raylets in one network namespace; everything but srun, scontrol and the model is real.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from sandbox import enclosed

import kit

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "infra" / "slurm" / "dawnchorus.sbatch"
TOOLS = Path(__file__).parent / "slurm_tools"
BIN = Path(sys.executable).parent
JOB = str(os.getpid())
DIRECTIVES = {
    *("job-name", "nodes", "ntasks-per-node", "cpus-per-task", "gres", "time", "output", "open-mode"),
    *("signal", "requeue"),
}


def test_shellcheck_finds_nothing() -> None:
    command = [BIN / "shellcheck", "--shell=bash", SCRIPT, TOOLS / "scontrol"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout


def test_directives_are_sbatchs_and_come_before_the_first_command() -> None:
    """sbatch reads no directive after the first line that is neither comment nor blank."""
    lines = SCRIPT.read_text(encoding="utf-8").splitlines()
    at = [i for i, x in enumerate(lines) if x.startswith("#SBATCH")]
    first = next(i for i, x in enumerate(lines) if x.strip() and not x.startswith("#"))
    found = dict(re.fullmatch(r"#SBATCH --([a-z-]+)(?:=(\S+))?", lines[i]).groups() for i in at)  # type: ignore[union-attr]
    assert max(at) < first
    assert set(found) == DIRECTIVES
    assert found["signal"] == "B:USR1@300", (
        "to the batch script alone: the steps must live while it publishes"
    )
    assert found["open-mode"] == "append", "a requeued job goes on with its log"


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder with a short path, for Ray's sockets."""
    with tempfile.TemporaryDirectory(dir="/tmp", prefix="dc-") as name:
        yield Path(name)


def _submit(
    folder: Path, options: dict[str, object], then: str = "", restarts: int = 0
) -> subprocess.CompletedProcess[str]:
    """What the job's output and exit code are; `then` is a shell command that runs beside it, as `$job`."""
    env = {
        **{k: v for k, v in os.environ.items() if not k.startswith(("RAY_", "SLURM_"))},
        "PATH": os.pathsep.join([str(TOOLS), str(BIN), os.environ["PATH"]]),
        "DAWNCHORUS_VENV": str(BIN.parent),
        "DAWNCHORUS_HEAD_IP": "127.0.0.1",
        "SLURM_SUBMIT_DIR": str(ROOT),
        "SLURM_JOB_ID": JOB,
        "SLURM_JOB_NUM_NODES": "2",
        "SLURM_JOB_NODELIST": "one,two",
        "SLURM_CPUS_PER_TASK": "2",
        "SLURM_RESTART_COUNT": str(restarts),
        "SLURM_NOTES": str(folder / "notes"),
    }
    config = folder / "run.yaml"
    config.write_text(
        json.dumps(
            {
                "input": str(folder / "archive"),
                "output": str(folder / "out"),
                "engine": {"name": "fake", "options": {"log": str(folder / "calls"), **options}},
                "workers": {"engines": 2, "window_rows": 4},
            }
        )
    )
    script = f"bash {SCRIPT} {config} resume.backoff_seconds=0.1 & job=$!; {then} wait $job"
    command = enclosed("bash", "-c", script)
    return subprocess.run(
        command, capture_output=True, text=True, timeout=280, env=env, cwd=folder, check=False
    )


def _notes(folder: Path) -> list[str]:
    return (folder / "notes").read_text().splitlines()


@pytest.mark.slow
def test_run_over_two_nodes(folder: Path) -> None:
    kit.archive(folder / "archive", [20.0, 8.0, 4.0])
    done = _submit(folder, {})
    assert done.returncode == 0, done.stdout + done.stderr
    assert kit.transcripts(folder / "out").num_rows == 3
    assert "2 x 2 CPUs: room for" in done.stderr, done.stderr
    worker, head = sorted(_notes(folder), key=lambda note: "--nodelist" in note)
    assert "--nodelist=one" in head
    assert "--nodes=1" in worker
    assert "--exclude=one" in worker
    assert not Path(f"/tmp/dc-{JOB}").exists()


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_time_that_is_up_publishes_and_queues_the_job_again(folder: Path) -> None:
    """Then the same script goes on where it stopped."""
    kit.archive(folder / "archive", [6.0] * 24)
    soon = f"until ls {folder}/out/chunks/part-* 2> /dev/null; do sleep 0.2; done; kill -USR1 $job; "
    done = _submit(folder, {"seconds_per_audio_second": 0.3}, soon)
    assert done.returncode == 130, done.stdout + done.stderr
    assert _notes(folder)[-1] == f"requeue {JOB}"
    assert 0 < kit.transcripts(folder / "out").num_rows < 24
    committed = kit.hashes(kit.chunk_rows(folder / "out"))
    before = len((folder / "calls").read_text().splitlines())
    again = _submit(folder, {}, restarts=1)
    assert again.returncode == 0, again.stdout + again.stderr
    assert kit.transcripts(folder / "out").num_rows == 24
    assert not _notes(folder)[-1].startswith("requeue")
    calls = [json.loads(x)["hash"] for x in (folder / "calls").read_text().splitlines()]
    assert 0 < before < len(calls)
    assert committed
    assert not committed & set(calls[before:]), "what was committed is not transcribed again"


@pytest.mark.slow
def test_person_who_stops_it_has_it_stopped(folder: Path) -> None:
    kit.archive(folder / "archive", [30.0] * 4)
    soon = f"until grep -q . {folder}/calls 2> /dev/null; do sleep 0.2; done; kill -TERM $job; "
    done = _submit(folder, {"seconds_per_audio_second": 0.3}, soon)
    assert done.returncode == 130, done.stdout + done.stderr
    assert not [n for n in _notes(folder) if n.startswith("requeue")]


def test_mistake_in_the_command_is_seen_and_not_queued_again(folder: Path) -> None:
    """Without an address that others reach nothing is started."""
    env = {"PATH": f"{TOOLS}:{BIN}:{os.environ['PATH']}", "SLURM_SUBMIT_DIR": str(ROOT), "SLURM_JOB_ID": "1"}
    env |= {"SLURM_JOB_NUM_NODES": "1", "SLURM_JOB_NODELIST": "no-such-host.invalid"}
    env |= {"SLURM_NOTES": str(folder / "notes"), "DAWNCHORUS_VENV": str(BIN.parent)}
    done = subprocess.run(["bash", SCRIPT], capture_output=True, text=True, timeout=60, env=env, check=False)
    assert done.returncode == 2
    assert "DAWNCHORUS_HEAD_IP" in done.stderr
    assert not (folder / "notes").exists()
