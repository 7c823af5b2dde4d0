"""What travels with a submitted run, and how it starts there: in Ray's Python, or with what that lacks."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from dawnchorus import config, parcel, submission


def packed(folder: Path) -> Path:
    given = {"input": str(folder / "audio"), "output": str(folder / "out"), "engine.name": "fake"}
    return parcel.pack(folder, config.build({}, (), given))


def test_it_holds_the_package_and_the_run(tmp_path: Path) -> None:
    parcel_ = packed(tmp_path)
    assert "name: fake" in (parcel_ / "run.yaml").read_text()
    assert {"ray", "typer", "pydantic"} <= set((parcel_ / "needs.txt").read_text().split())
    assert sum(f.stat().st_size for f in parcel_.rglob("*") if f.is_file()) < 2_000_000


def test_a_python_without_the_package_is_named_with_what_to_install(tmp_path: Path) -> None:
    """Without `site` a Python finds nothing that was installed."""
    words = [sys.executable, "-S", "-m", "dawnchorus.driver", "needs.txt", "run.yaml"]
    done = subprocess.run(words, cwd=packed(tmp_path), capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith(f"Error: {sys.executable} (Python 3.")
    assert "typer" in done.stderr
    assert f"{sys.executable} -m pip install" in done.stderr
    assert "Traceback" not in done.stderr


def test_it_starts_in_the_python_that_an_ancestor_was_told(tmp_path: Path) -> None:
    """The raylet is played by a shell with its argument; nothing of PATH is the venv's."""
    parcel_ = packed(tmp_path)
    (parcel_ / "run.yaml").write_text("input: [broken\n")
    script = 'sh -c "exec sh start.sh; :"; exit $?'
    told = f"--python_worker_command={sys.executable} /some/setup_worker.py --node-ip=1"
    done = subprocess.run(
        ["sh", "-c", script, "raylet", told],
        cwd=parcel_,
        env={**os.environ, "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2, done.stderr
    assert "cannot be read as YAML" in done.stderr


def test_a_job_is_named_by_what_it_does(tmp_path: Path) -> None:
    def name(**given: object) -> str:
        base = {"input": "s3://b/in", "output": "s3://b/out", "engine.name": "fake"}
        return submission.name(
            config.build({}, (), base | {k.replace("__", "."): v for k, v in given.items()})
        )

    assert name() == name() == name(workers__engines=3)
    others = [
        name(limit=3),
        name(engine__model="large-v3"),
        name(vad__threshold=0.4),
        name(output="s3://b/o"),
    ]
    assert len({name(), *others}) == 5


def test_relative_paths_are_told_in_full(tmp_path: Path) -> None:
    given = submission.anywhere(config.build({"input": "audio/*.mp3", "output": "s3://b/out"}))
    assert (given.input, given.output) == (str(Path.cwd() / "audio/*.mp3"), "s3://b/out")


def test_a_submitted_driver_is_called_as_leave_looks_for_it(tmp_path: Path) -> None:
    """A head that goes would have been drained, and its driver killed without publishing."""
    (tmp_path / "needs.txt").write_text("")
    (tmp_path / "sitecustomize.py").write_text(
        "import atexit; atexit.register(lambda: print(open('/proc/self/comm').read()))"
    )
    done = subprocess.run(
        [sys.executable, "-m", "dawnchorus.driver", str(tmp_path / "needs.txt"), str(tmp_path / "none.yaml")],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        timeout=60,
    )
    assert done.returncode == 2
    assert done.stdout == "dawnchorus\n\n"
