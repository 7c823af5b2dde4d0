"""The Transcriber alone: row for row, and the notes that quarantine what ends a process."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from dawnchorus.config import EngineConfig
from dawnchorus.engines import create
from dawnchorus.engines.base import Identity
from dawnchorus.engines.fake import waveform_hash
from dawnchorus.errors import EngineUnavailable, RunPaused
from dawnchorus.ids import part_id
from dawnchorus.schema import CHUNKS, DECODED
from dawnchorus.stages.decoded import decoded_table
from dawnchorus.stages.transcribe import Transcriber, TranscribeSettings
from dawnchorus.stages.watch import load


def transcriber(folder: Path) -> Transcriber:
    engine = EngineConfig(name="fake", options={"log": str(folder / "log")})
    return Transcriber(TranscribeSettings(engine, "run", "print", str(folder / "notes")))


def row(index: int, seconds: float, **columns: Any) -> dict[str, Any]:
    rng = np.random.default_rng(index)
    wave = rng.integers(-9000, 9000, round(seconds * 16_000)).astype(np.int16)
    made: dict[str, Any] = {n: None for n in DECODED.names if n != "waveform"}
    spans = {"start": 10.0, "end": 10.0 + seconds, "input_start": 10.0, "input_end": 10.0 + seconds}
    keys = {"kind": "chunk", "recording_id": "r", "chunk_id": f"c{index}", "chunk_index": index, "tries": 1}
    return made | keys | spans | {"sampling_rate": 16_000, "waveform": wave} | columns


def window(count: int) -> pa.Table:
    rows = [row(i, 1.0 + i % 3) for i in range(count)]
    end = {"kind": "end", "chunk_id": "e", "status": "ok", "waveform": np.zeros(0, np.int16)}
    return decoded_table([*rows[: count // 2], row(99, 0.0, **end), *rows[count // 2 :]])


def test_rows_come_back_in_order_with_times_of_the_recording(tmp_path: Path) -> None:
    before = window(5)
    after = transcriber(tmp_path)(before)
    assert after.schema.equals(CHUNKS)
    assert after["chunk_id"].to_pylist() == before["chunk_id"].to_pylist()
    waves = before["waveform"].to_pylist()
    for made, wave in zip(after.to_pylist(), waves, strict=True):
        if made["kind"] == "end":
            assert made["status"] == "ok"
            continue
        heard = np.array(wave, np.float32) / 32768
        assert made["segments"][0]["text"] == f"w{waveform_hash(heard)}"
        assert made["segments"][0]["start"] >= 10.0
        assert made["timing"]["engine_seconds"] >= 0


def test_a_sliced_window_is_the_window(tmp_path: Path) -> None:
    """Ray hands over slices of larger blocks: offsets that do not begin at 0."""
    whole = window(6)
    act = transcriber(tmp_path)
    texts = [r["segments"][0]["text"] if r["segments"] else None for r in act(whole).to_pylist()]
    sliced = [r["segments"][0]["text"] if r["segments"] else None for r in act(whole.slice(2, 3)).to_pylist()]
    assert sliced == texts[2:5]


def test_a_window_that_ended_a_process_is_done_one_by_one_and_its_killer_quarantined(tmp_path: Path) -> None:
    notes = tmp_path / "notes"
    notes.mkdir()
    ids = [f"c{i}" for i in range(4)]
    (notes / part_id("window", ids)).write_bytes(b"x")
    (notes / "c2").write_bytes(b"xx")
    after = transcriber(tmp_path)(decoded_table([row(i, 1.0) for i in range(4)])).to_pylist()
    assert [r["status"] for r in after] == ["ok", "ok", "failed", "ok"]
    assert after[2]["failure"]["kind"] == "crash"
    assert not after[2]["failure"]["transient"]
    assert after[2]["failure"]["attempts"] == 2
    assert sorted(p.name for p in notes.iterdir()) == sorted([part_id("window", ids), "c2", "succeeded"]), (
        "done is forgotten"
    )


def test_when_every_chunk_ended_its_process_the_engine_is_at_fault(tmp_path: Path) -> None:
    notes = tmp_path / "notes"
    notes.mkdir()
    (notes / part_id("window", ["c0", "c1"])).write_bytes(b"x")
    for name in ("c0", "c1"):
        (notes / name).write_bytes(b"xx")
    rows = decoded_table([row(i, 1.0) for i in range(2)])
    with pytest.raises(RunPaused, match="at each of 2 chunks"):
        transcriber(tmp_path)(rows)
    transcriber(tmp_path)(decoded_table([row(5, 1.0)]))
    assert [r["failure"]["kind"] for r in transcriber(tmp_path)(rows).to_pylist()] == ["crash", "crash"]


def test_a_model_without_memory_is_a_refusal_and_not_built_again(tmp_path: Path) -> None:
    """Whatever else is raised in a constructor has Ray build the actor again: sixty loads of a model."""

    class Large:
        def identity(self) -> Identity:
            raise NotImplementedError

        def load(self) -> None:
            raise RuntimeError("CUDA out of memory. Tried to allocate 20 GiB.")

    with pytest.raises(EngineUnavailable, match="no memory for the model"):
        load(Large(), EngineConfig(name="fake"), "run", "here:1")


def test_a_node_with_another_model_transcribes_nothing(tmp_path: Path) -> None:
    """Its rows would bear the fingerprint of the model that the run identified."""
    engine = EngineConfig(name="whisper", threads=1)
    weights = create(engine).identity().facts["weights_sha256"]
    same = TranscribeSettings(engine, "run", "print", str(tmp_path / "notes"), weights=weights)
    assert Transcriber(same).refusal is None
    other = Transcriber(replace(same, weights="0" * 64))
    with pytest.raises(EngineUnavailable, match=f"SHA-256 {weights[:16]}, not 0000"):
        other(window(2))
