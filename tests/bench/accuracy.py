"""Accuracy bench: word error rate and speed over segmentations, beside faster-whisper's own pipelines.

    python tests/bench/accuracy.py [FOLDER] [--quick] [--out tests/bench/ACCURACY.md]

FOLDER holds audio files and either `refs.json` ({file: {"text": reference}}) or `manifest.jsonl` (NeMo);
without one it is the sample archive. Every row runs in this process on one thread, so that the speeds
compare; takes of equal waveforms in equal windows are kept in memory and charged each time with the
processor seconds they took the first time. `--quick` runs only the defaults and the baseline.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
from numpy.typing import NDArray

from dawnchorus.audio import Decoder
from dawnchorus.chunking import Chunker, chunk_params, owned
from dawnchorus.config import AudioConfig, ChunkingConfig, EngineConfig, VadConfig
from dawnchorus.engines.whisper import WhisperEngine
from dawnchorus.engines.whisper_weights import model_path
from dawnchorus.scoring import Score, score
from dawnchorus.vad import SpeechDetector

RATE = 16_000
LONG_SECONDS = 600.0
SAMPLE = Path(__file__).parents[1] / "data" / "sample"

Texts = Callable[["File"], tuple[str, float]]
"""A file -> its transcript and the processor seconds it took."""


@dataclass(frozen=True)
class File:
    """One file of the folder: int16 mono samples at 16 kHz and the reference."""

    name: str
    samples: NDArray[np.int16]
    reference: str

    @property
    def seconds(self) -> float:
        return len(self.samples) / RATE


def load(folder: Path) -> list[File]:
    """Every file that has a reference and can be read, mixed down, at 16 kHz."""
    listing = folder / "refs.json"
    if listing.exists():
        facts = json.loads(listing.read_text(encoding="utf-8"))
        texts = {name: f["text"] for name, f in facts.items()}
    else:
        lines = (folder / "manifest.jsonl").read_text(encoding="utf-8").splitlines()
        rows = [json.loads(line) for line in lines if line.strip()]
        texts = {r["audio_filepath"]: r["text"] for r in rows if r.get("text") and "offset" not in r}
    files = []
    with Decoder(AudioConfig()) as decoder:
        for name, text in texts.items():
            blocks = [b.samples[0] for b in decoder.open(str(folder / name), RATE)]
            files.append(File(name, np.concatenate(blocks), text))
    return files


class RememberingEngine(WhisperEngine):
    """The engine, which decodes equal jobs once and charges them every time."""

    def __init__(self, config: EngineConfig) -> None:
        super().__init__(config)
        self.takes: dict[tuple[bytes, int], tuple[Any, float]] = {}
        self.seconds = 0.0

    def _decode(self, jobs: Sequence[Any]) -> list[Any]:
        keys = [(j.waveform.tobytes(), j.frames) for j in jobs]
        new = [i for i, k in enumerate(keys) if k not in self.takes]
        start = time.process_time()
        takes = super()._decode([jobs[i] for i in new])
        frames = sum(jobs[i].frames for i in new)
        per_frame = (time.process_time() - start) / max(1, frames)
        for i, take in zip(new, takes, strict=True):
            self.takes[keys[i]] = (take, per_frame * jobs[i].frames)
        self.seconds += sum(self.takes[k][1] for k in keys)
        return [self.takes[k][0] for k in keys]


@cache
def _detector() -> SpeechDetector:
    return SpeechDetector()


_probabilities: dict[str, tuple[NDArray[np.float32], float]] = {}


def probabilities(file: File) -> tuple[NDArray[np.float32], float]:
    """Speech probabilities of a file and the processor seconds they took."""
    if file.name not in _probabilities:
        start = time.process_time()
        stream = _detector().stream()
        heard = np.concatenate([stream.push(file.samples), stream.finish()])
        _probabilities[file.name] = (heard, time.process_time() - start)
    return _probabilities[file.name]


def dawn_chorus(engine: RememberingEngine, vad: VadConfig, chunking: ChunkingConfig) -> Texts:
    """Chunks of the package's own VAD and chunker through the engine, a window of 16 at a time."""

    def texts(file: File) -> tuple[str, float]:
        heard, seconds = probabilities(file)
        params = chunk_params(vad, chunking, RATE, engine.max_chunk_seconds)
        chunker = Chunker(params, None)
        n = len(file.samples)
        chunks = chunker.push(heard if vad.enabled else heard[:0], n) + chunker.finish(n)
        before, said = engine.seconds, []
        for i in range(0, len(chunks), 16):
            window = chunks[i : i + 16]
            waveforms = [
                file.samples[c.input_start : c.input_end].astype(np.float32) / np.float32(32768)
                for c in window
            ]
            for chunk, hypothesis in zip(window, engine.transcribe(waveforms), strict=True):
                start, end = ((x - chunk.input_start) / RATE for x in (chunk.start, chunk.end))
                said += [s.text for s in owned(hypothesis.segments, start, end)]
        return " ".join(said), engine.seconds - before + seconds * vad.enabled

    return texts


def faster_whisper(batched: bool) -> Texts:
    """faster-whisper's own decoding of whole files, greedy: sequential, or batched with its VAD."""
    from faster_whisper import BatchedInferencePipeline, WhisperModel

    model = WhisperModel(str(model_path(None, None)), device="cpu", compute_type="int8", cpu_threads=1)
    transcribe = BatchedInferencePipeline(model).transcribe if batched else model.transcribe

    def texts(file: File) -> tuple[str, float]:
        start = time.process_time()
        segments, _ = transcribe(file.samples.astype(np.float32) / 32768, beam_size=1, language="en")
        text = " ".join(s.text.strip() for s in segments)
        return text, time.process_time() - start

    return texts


def row(label: str, files: Sequence[File], texts: Texts) -> str:
    """One line of the table."""
    total, long = Score(), Score()
    seconds = 0.0
    for file in files:
        text, took = texts(file)
        found = score(file.reference, text)
        total += found
        long += found if file.seconds > LONG_SECONDS else Score()
        seconds += took
    speed = sum(f.seconds for f in files) / seconds
    cells = [label, _cell(total), _cell(long), f"{speed:.0f}"]
    return f"| {' | '.join(cells)} |"


def _cell(found: Score) -> str:
    if found.wer is None:
        return "-"
    kinds = f"{found.substitutions} / {found.deletions} / {found.insertions}"
    return f"{100 * found.wer:.2f} % ({kinds})"


def sweep() -> Iterator[tuple[str, VadConfig, ChunkingConfig, EngineConfig]]:
    """The segmentations of the table: what differs from the defaults, and how."""
    engine = EngineConfig(threads=1)
    full = EngineConfig(threads=1, options={"margin_seconds": 30})
    vad, chunking = VadConfig(), ChunkingConfig()

    def but(**keys: float) -> ChunkingConfig:
        return ChunkingConfig(**(chunking.model_dump() | keys))

    def pause(**keys: float) -> VadConfig:
        return VadConfig(**(vad.model_dump() | keys))

    yield "**defaults**", vad, chunking, engine
    yield "full 30 s windows", vad, chunking, full
    yield "margin 2 s", vad, chunking, EngineConfig(threads=1, options={"margin_seconds": 2})
    yield "never merge", vad, but(merge_seconds=0), engine
    for gap, longest in ((0.6, 10), (1, 15), (1, 25), (2, 25)):
        yield (
            f"merge over {gap} s up to {longest} s",
            vad,
            but(merge_gap_seconds=gap, merge_seconds=longest),
            engine,
        )
    for threshold in (0.5, 0.3, 0.1):
        yield f"threshold {threshold}", pause(threshold=threshold), chunking, engine
    for pad in (0.1, 0.2):
        yield f"padding {pad} s", pause(pad_seconds=pad), chunking, engine
    for gap in (0.2, 0.3, 0.8):
        yield f"pauses from {gap} s", pause(min_pause_seconds=gap), chunking, engine
    yield "no redo by log-probability", vad, chunking, EngineConfig(threads=1, redo_logprob=-100)
    yield "VAD off (fixed windows)", VadConfig(enabled=False), chunking, engine


def main() -> int:
    """Print the table as it grows, and write it where `--out` says."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", type=Path, nargs="?", default=SAMPLE)
    parser.add_argument("--quick", action="store_true", help="only the defaults and the baseline")
    parser.add_argument("--out", type=Path, help="Markdown file whose table is replaced")
    arguments = parser.parse_args()
    files = load(arguments.folder)
    lines = ["| | all files (sub / del / ins) | over 10 min | rtfx |", "|---|---|---|---|"]

    def add(line: str) -> None:
        lines.append(line)
        print(line, flush=True)

    add(row("faster-whisper, sequential", files, faster_whisper(batched=False)))
    engines: dict[str, RememberingEngine] = {}
    for label, vad, chunking, config in sweep():
        key = config.model_dump_json()
        if key not in engines:
            engines[key] = RememberingEngine(config)
            engines[key].load()
        add(row(label, files, dawn_chorus(engines[key], vad, chunking)))
        if arguments.quick:
            return 0
    add(row("faster-whisper, batched with its VAD", files, faster_whisper(batched=True)))
    if arguments.out:
        _replace_table(arguments.out, lines)
    return 0


def _replace_table(path: Path, lines: Sequence[str]) -> None:
    old = (
        path.read_text(encoding="utf-8").splitlines() if path.exists() else ["<!-- table -->", "<!-- end -->"]
    )
    start, end = old.index("<!-- table -->"), old.index("<!-- end -->")
    path.write_text("\n".join([*old[: start + 1], *lines, *old[end:]]) + "\n", encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
