"""What integration tests share: an archive of speech, the command as a process, the tables it leaves."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import soundfile

SAMPLE = Path(__file__).parent / "data" / "sample"
SPEECH = SAMPLE / "audio" / "notes"
PATIENCE = 180.0
"""Seconds that a small run may take on a busy two-core machine."""

NOT_COMPARED = {"run_id"}
"""Columns of transcripts that may differ between a broken and an unbroken run (`failure.attempts` too)."""


def speech(path: Path, seconds: float, seed: int) -> Path:
    """A FLAC of sample speech with pauses, about `seconds` long; a faint noise makes each seed's samples,
    and so each chunk's hash, its own."""
    spoken = [p for p in sorted(SPEECH.iterdir()) if "without" not in p.name]
    sources = [p for p in spoken if p.suffix in {".flac", ".wav", ".ogg"}]
    rng = np.random.default_rng(seed)
    pieces: list[np.ndarray] = []
    length = 0
    while length < seconds * 16_000:
        samples, rate = soundfile.read(
            sources[int(rng.integers(len(sources)))], dtype="float32", always_2d=True
        )
        step = rate / 16_000
        at = np.arange(0, len(samples) - 1, step)
        pieces += [np.interp(at, np.arange(len(samples)), samples[:, 0]), np.zeros(12_000)]
        length += len(pieces[-1]) + len(pieces[-2])
    whole = np.concatenate(pieces)[: int(seconds * 16_000)]
    whole = whole + rng.normal(0, 0.0005, len(whole))
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, whole.clip(-1, 1), 16_000, subtype="PCM_16")
    return path


def archive(folder: Path, seconds: Iterable[float], seed: int = 0) -> Path:
    """A folder of speech files, one per length."""
    for i, length in enumerate(seconds):
        speech(folder / f"{i:03d}.flac", length, seed * 1000 + i)
    return folder


@dataclass
class Command:
    """`dawnchorus run` of one input into one output with the fake engine, as a process."""

    input: str
    output: Path
    settings: dict[str, Any] = field(default_factory=dict)
    options: list[str] = field(default_factory=list)
    env: dict[str, str] = field(default_factory=dict)
    engine: str = "fake"

    @property
    def log(self) -> Path:
        """The fake engine's log of what it transcribed."""
        return self.output.parent / f"{self.output.name}.calls.jsonl"

    @property
    def script(self) -> Path:
        """The fake engine's instructions."""
        return self.output.parent / f"{self.output.name}.script.json"

    def arguments(self) -> list[str]:
        """The command line."""
        words = ["run", "--input", self.input, "--output", str(self.output), "--engine", self.engine]
        settings = {
            "workers.window_rows": 8,
            "workers.engines": 1,
            "resume.backoff_seconds": 0.1,
            **self.settings,
        }
        if self.engine == "fake":
            given = settings.pop("engine.options", {})
            settings["engine.options"] = {"log": str(self.log), "script": str(self.script), **given}
        flat = [f"{k}={json.dumps(v)}" for k, v in settings.items()]
        return [sys.executable, "-m", "dawnchorus.cli", "--debug", *words, *self.options, *flat]

    def start(self) -> subprocess.Popen[str]:
        """The running process, output captured in `<output>.txt` beside the output."""
        self.output.parent.mkdir(parents=True, exist_ok=True)
        env = {**os.environ, "OMP_NUM_THREADS": "1", **self.env}
        with open(self.said, "a") as text:
            return subprocess.Popen(self.arguments(), stdout=text, stderr=text, text=True, env=env)

    @property
    def said(self) -> Path:
        """What the command printed."""
        return self.output.parent / f"{self.output.name}.txt"

    def run(self, expect: int | None = 0) -> str:
        """Run to the end; returns what it printed."""
        before = self.said.stat().st_size if self.said.exists() else 0
        process = self.start()
        try:
            code = process.wait(PATIENCE)
        finally:
            kill(process)
        text = self.said.read_text()[before:]
        assert expect is None or code == expect, f"exit code {code}, not {expect}:\n{text}"
        return text

    def interrupted(self, condition: Callable[[], bool]) -> str:
        """Press Ctrl-C once a condition holds; returns what it has printed."""
        process = self.start()
        try:
            assert wait_for(condition, process)
            process.send_signal(signal.SIGINT)
            assert process.wait(60) == 130
        finally:
            kill(process)
        return self.said.read_text()

    def calls(self) -> list[dict[str, Any]]:
        """What the engine transcribed, in order. While it runs, its last line may be half written."""
        if not self.log.exists():
            return []
        whole = self.log.read_text().rpartition("\n")[0]
        return [json.loads(line) for line in whole.splitlines()]

    def tell(self, **script: Any) -> None:
        """Give the fake engine new instructions."""
        self.script.parent.mkdir(parents=True, exist_ok=True)
        self.script.write_text(json.dumps(script))


def kill(process: subprocess.Popen[Any]) -> bool:
    """kill -9 a driver, and wait until the processes it had started are gone too: within 4 s, but for two
    agents of Ray, which would stay. Returns whether it lived until then."""
    children = []
    if process.poll() is None:
        process.send_signal(signal.SIGSTOP)  # now: to find its children takes milliseconds
        with suppress(psutil.NoSuchProcess):
            children = psutil.Process(process.pid).children(recursive=True)
    process.kill()
    process.wait()
    end(children)
    return process.returncode == -signal.SIGKILL


def end(processes: list[psutil.Process], timeout: float = 5) -> None:
    """Wait until processes have ended, and kill -9 those that have not: any may go by itself meanwhile."""
    for one in psutil.wait_procs(processes, timeout)[1]:
        with suppress(psutil.NoSuchProcess):
            one.kill()


def decoders(process: subprocess.Popen[Any]) -> list[psutil.Process]:
    """The workers of a driver that decode: while they do, Ray calls them so."""
    found = []
    for child in psutil.Process(process.pid).children(recursive=True):
        with suppress(psutil.NoSuchProcess):  # Ray's own come and go
            if "Decode" in child.name():
                found.append(child)
    return found


def wait_for(
    condition: Callable[[], bool], process: subprocess.Popen[str], seconds: float = PATIENCE
) -> bool:
    """Poll until a condition holds (True) or the process has ended without it (False)."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        if condition():
            return True
        if process.poll() is not None:
            return condition()
        time.sleep(0.005)
    raise TimeoutError("the condition never held")


def parts(output: Path) -> list[Path]:
    """Committed windows."""
    return sorted((output / "chunks").glob("part-*.parquet"))


def chunk_rows(output: Path) -> list[dict[str, Any]]:
    """Every committed row of chunks/, duplicates included."""
    return [r for p in parts(output) for r in pq.read_table(p).to_pylist()]


def hashes(rows: Iterable[dict[str, Any]]) -> set[str]:
    """The fake engine's hash of each transcribed chunk row."""
    return {
        r["segments"][0]["text"].removeprefix("w") for r in rows if r["kind"] == "chunk" and r["segments"]
    }


def transcripts(output: Path) -> pa.Table:
    """The transcripts table, files in order of name."""
    return pa.concat_tables([pq.read_table(p) for p in sorted((output / "transcripts").glob("*.parquet"))])


def comparable(output: Path) -> list[dict[str, Any]]:
    """Transcript rows without what may differ between a broken and an unbroken run."""
    return comparable_rows(transcripts(output))


def comparable_rows(table: pa.Table) -> list[dict[str, Any]]:
    """The same of a table that was read already."""
    rows = table.to_pylist()
    for row in rows:
        for name in NOT_COMPARED:
            row.pop(name)
        if row["failure"]:
            row["failure"].pop("attempts")
    return rows
