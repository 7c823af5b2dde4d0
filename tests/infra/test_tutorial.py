"""The tutorial's programs run, in its order, on a corpus like the one it speaks of."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

import surfaces
from dawnchorus.schema import TRANSCRIPTS

TUTORIAL = Path(__file__).parents[2] / "infra" / "TUTORIAL.md"


def corpus(folder: Path) -> None:
    def row(name: str, status: str, text: str, flags: list[str]) -> dict[str, object]:
        failure = {"stage": "decode", "kind": "not_audio", "message": "It is a letter.", "transient": False}
        segment = {"channel": 0, "start": 0.5, "end": 4.0, "text": text, "avg_logprob": -0.2}
        return {
            "recording_id": name,
            "audio_filepath": f"s3://my-bucket/podcasts/{name}.mp3",
            "duration": 1800.0 if status == "ok" else None,
            "status": status,
            "flags": flags,
            "pred_text": text,
            "segments": [segment] if text else [],
            "failure": failure if status == "failed" else None,
        }

    rows = [
        row("one", "ok", "The harbour is quiet today.", []),
        row("two", "ok", "Nobody knows.", ["partial"]),
        row("three", "failed", "", []),
    ]
    (folder / "out" / "transcripts").mkdir(parents=True)
    table = pa.Table.from_pylist(rows, schema=TRANSCRIPTS)
    pq.write_table(table, folder / "out" / "transcripts" / "part-0.parquet")


def test_the_programs_run(tmp_path: Path) -> None:
    corpus(tmp_path)
    blocks = re.findall(r"```python\n(.*?)```", TUTORIAL.read_text(encoding="utf-8"), re.DOTALL)
    assert len(blocks) == 4
    code = "\n".join(blocks)
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        env={"HOME": str(tmp_path), "PATH": "/usr/bin:/bin", "HF_HUB_OFFLINE": "1"},
    )
    assert done.returncode == 0, done.stderr
    for told in ("not_audio", "The harbour is quiet today.", "3 recordings, 1 without a doubt, 1 segments"):
        assert told in done.stdout


def test_the_commands_are_there() -> None:
    known = surfaces.options()
    told = re.findall(r"^\.venv/bin/dawnchorus (.*)$", TUTORIAL.read_text(encoding="utf-8"), re.MULTILINE)
    assert len(told) >= 5
    for line in told:
        assert set(re.findall(r"(?<!\S)--[a-z-]+", line)) <= known[line.split()[0]], line
