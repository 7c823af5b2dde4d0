"""Whole runs with the fake engine: what goes in, what comes out, what a second run does."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import ray.data
import soundfile
from typer.testing import CliRunner

from dawnchorus import graph
from dawnchorus.cli import app
from dawnchorus.config import AudioConfig, ChunkingConfig, EngineConfig, VadConfig
from dawnchorus.errors import FingerprintMismatch
from dawnchorus.placement import Resources
from dawnchorus.plan import Snapshot
from dawnchorus.run import Exit
from dawnchorus.stages.decoded import DecodeSettings
from dawnchorus.stages.transcribe import TranscribeSettings
from kit import SAMPLE, archive, chunk_rows, hashes, speech, transcripts
from runner import Runner


@pytest.fixture(scope="module")
def audio(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return archive(tmp_path_factory.mktemp("audio"), [9.0, 5.0, 14.0], seed=7)


def test_the_sample_archive_ends_as_one_row_per_line(runner: Runner) -> None:
    outcome = runner(SAMPLE / "manifest.jsonl")
    assert outcome.exit is Exit.OK, outcome.message
    lines = [json.loads(line) for line in (SAMPLE / "manifest.jsonl").read_text().splitlines()]
    rows = transcripts(runner.output).to_pylist()
    assert [r["audio_filepath"].rpartition("/")[2] for r in rows] == [
        line["audio_filepath"].rpartition("/")[2] for line in lines
    ], "one row per line, in order"
    assert {r["status"] for r in rows} == {"ok", "empty", "failed"}
    assert {r["failure"]["kind"] for r in rows if r["failure"]} == {"not_audio", "not_found"}
    for row, line in zip(rows, lines, strict=True):
        assert row["text"] == line.get("text")
        assert json.loads(row["metadata"]) == {
            k: v for k, v in line.items() if k not in {"audio_filepath", "text", "duration", "offset"}
        }


def test_a_bad_line_is_a_row_with_its_file_and_line(runner: Runner, audio: Path) -> None:
    source = runner.folder / "list.jsonl"
    good = [json.dumps({"audio_filepath": str(p)}) for p in sorted(audio.iterdir())]
    source.write_text("\n".join([good[0], "{not json", *good[1:]]))
    outcome = runner(source, manifest__max_bad_share=0.5)
    assert outcome.exit is Exit.OK, outcome.message
    rows = transcripts(runner.output).to_pylist()
    assert [r["status"] for r in rows] == ["ok", "failed", "ok", "ok"]
    assert rows[1]["failure"]["kind"] == "invalid_json"
    assert "list.jsonl:2" in rows[1]["failure"]["message"]
    before = {p: p.stat().st_mtime_ns for p in runner.output.rglob("transcripts/*")}
    assert runner(source, manifest__max_bad_share=0.5).exit is Exit.OK
    said = CliRunner().invoke(app, ["assemble", str(runner.output)]).output
    assert said.startswith("0 transcripts published")
    assert {p: p.stat().st_mtime_ns for p in runner.output.rglob("transcripts/*")} == before


def test_a_second_run_does_nothing_and_a_grown_folder_only_what_is_new(runner: Runner, audio: Path) -> None:
    folder = runner.folder / "in"
    folder.mkdir()
    for path in sorted(audio.iterdir())[:2]:
        (folder / path.name).write_bytes(path.read_bytes())
    first = runner(folder)
    paid = len(runner.calls())
    assert runner(folder).run_id == first.run_id
    assert len(runner.calls()) == paid
    (folder / "new.flac").write_bytes((audio / "002.flac").read_bytes())
    grown = runner(folder)
    assert grown.exit is Exit.OK
    assert grown.run_id != first.run_id
    assert len(transcripts(runner.output)) == 3
    assert len({c["hash"] for c in runner.calls()}) == len(runner.calls()), "no chunk was paid for twice"


def test_a_reference_that_comes_later_is_in_its_row_and_nothing_is_paid_for_twice(
    runner: Runner, audio: Path
) -> None:
    manifest = runner.folder / "list.jsonl"
    lines = [{"audio_filepath": str(p), "speaker": "A"} for p in sorted(audio.iterdir())]

    def with_first(**columns: str) -> list[dict[str, Any]]:
        manifest.write_text("\n".join(json.dumps(line) for line in (lines[0] | columns, *lines[1:])))
        assert runner(manifest).exit is Exit.OK
        return transcripts(runner.output).to_pylist()

    before = with_first()
    paid = len(runner.calls())
    after = with_first(text="what was said", speaker="B")
    assert (after[0]["text"], after[0]["metadata"]) == ("what was said", '{"speaker":"B"}')
    assert after[0] | {n: before[0][n] for n in ("text", "metadata", "run_id")} == before[0]
    assert after[1:] == before[1:], "what the manifest says as before is not written again"
    assert len(runner.calls()) == paid


def test_a_pilot_counts_towards_the_full_run(runner: Runner, audio: Path) -> None:
    runner(audio, limit=1)
    assert len(transcripts(runner.output)) == 1
    paid = len(runner.calls())
    assert runner(audio).exit is Exit.OK
    assert len(transcripts(runner.output)) == 3
    assert len(runner.calls()) > paid
    assert len({c["hash"] for c in runner.calls()}) == len(runner.calls())


@pytest.mark.slow
def test_a_thousand_slices_of_one_object_decode_it_once(runner: Runner, audio: Path) -> None:
    whole = speech(runner.folder / "hour.flac", 200.0, seed=5)
    lines = [{"audio_filepath": whole.name, "offset": i * 0.2, "duration": 0.2} for i in range(1000)]
    manifest = runner.folder / "slices.jsonl"
    manifest.write_text("\n".join(json.dumps(line) for line in lines))
    outcome = runner(manifest)
    assert outcome.exit is Exit.OK, outcome.message
    rows = transcripts(runner.output).to_pylist()
    assert [r["offset"] for r in rows] == [line["offset"] for line in lines]
    times = [r["timing"] for r in chunk_rows(runner.output) if r["kind"] == "end"]
    began = [t["started_at"] - t["decode_seconds"] for t in times]
    assert len(began) == 1000
    assert max(began) - min(began) < 0.1, "one decode, with one beginning"
    assert all(r["duration"] == pytest.approx(0.2) for r in rows)


def test_slices_beyond_the_end_say_so(runner: Runner, audio: Path) -> None:
    lines = [
        {"audio_filepath": str(audio / "001.flac"), "offset": 3.0, "duration": 10.0},
        {"audio_filepath": str(audio / "001.flac"), "offset": 30.0, "duration": 1.0},
        {"audio_filepath": str(audio / "001.flac"), "offset": 4.0},
    ]
    manifest = runner.folder / "slices.jsonl"
    manifest.write_text("\n".join(json.dumps(line) for line in lines))
    runner(manifest)
    short, outside, tail = transcripts(runner.output).to_pylist()
    assert short["flags"] == ["duration_mismatch"]
    assert short["duration"] == pytest.approx(2.0)
    assert outside["failure"]["kind"] == "outside_audio"
    assert tail["duration"] == pytest.approx(1.0)


def test_separate_channels_are_transcribed_each(runner: Runner, audio: Path) -> None:
    left, rate = soundfile.read(audio / "000.flac", dtype="float32")
    right, _ = soundfile.read(audio / "001.flac", dtype="float32")
    both = np.zeros((len(left), 2), np.float32)
    both[:, 0] = left
    both[: len(right), 1] = right
    soundfile.write(runner.folder / "call.wav", both, rate)
    outcome = runner(runner.folder / "call.wav", audio__channels="separate")
    assert outcome.exit is Exit.OK, outcome.message
    (row,) = transcripts(runner.output).to_pylist()
    assert row["num_channels"] == 2
    assert {s["channel"] for s in row["segments"]} == {0, 1}
    assert [s["start"] for s in row["segments"]] == sorted(s["start"] for s in row["segments"])
    assert row["coverage"]["decoded"] == pytest.approx(2 * len(left) / rate)


def test_other_settings_are_refused_until_told_what_to_do(runner: Runner, audio: Path) -> None:
    runner(audio)
    before = transcripts(runner.output)
    with pytest.raises(FingerprintMismatch, match=r"vad\.threshold was 0\.15, is 0\.4"):
        runner(audio, vad__threshold=0.4)
    kept = runner(audio, vad__threshold=0.4, resume__other_fingerprint="keep-old")
    assert kept.exit is Exit.OK, kept.message
    assert transcripts(runner.output).equals(before)
    redone = runner(audio, vad__threshold=0.4, resume__other_fingerprint="redo")
    assert redone.exit is Exit.OK, redone.message
    after = transcripts(runner.output)
    assert CliRunner().invoke(app, ["assemble", str(runner.output)]).output.startswith("0 transcripts")
    assert transcripts(runner.output).equals(after), "the older run's rows do not come back"
    assert after["recording_id"].to_pylist() == before["recording_id"].to_pylist()
    assert len({*after["fingerprint"].to_pylist()} | {*before["fingerprint"].to_pylist()}) == 2


@pytest.mark.slow
def test_a_chunk_that_ends_its_process_costs_itself_only(runner: Runner, audio: Path) -> None:
    first = runner(audio, output=runner.folder / "clean")
    assert first.exit is Exit.OK
    poison = runner.calls()[2]["hash"]
    runner.tell(die_hashes=[poison])
    outcome = runner(audio)
    assert outcome.exit is Exit.OK, outcome.message
    rows = chunk_rows(runner.output)
    failed = [r for r in rows if r["status"] == "failed"]
    assert [f["failure"]["kind"] for f in failed] == ["crash"]
    assert hashes(rows) == hashes(chunk_rows(runner.folder / "clean")) - {poison}
    flagged = [r for r in transcripts(runner.output).to_pylist() if "partial" in r["flags"]]
    assert len(flagged) == 1
    assert flagged[0]["failure"]["kind"] == "crash"


@pytest.mark.slow
def test_chunks_that_end_more_processes_than_ray_retries_cost_themselves_only(runner: Runner) -> None:
    """Seven deaths stop the graph; the next one starts with what the engines noted."""
    audio = archive(runner.folder / "many", [7.0] * 5, seed=5)
    runner(audio, output=runner.folder / "clean")
    clean = hashes(chunk_rows(runner.folder / "clean"))
    poison = sorted(clean)[:3]
    runner.tell(die_hashes=poison)
    outcome = runner(audio)
    assert outcome.exit is Exit.OK, outcome.message
    assert [s for s in runner.ui.said if s.startswith("The graph stopped")]
    rows = chunk_rows(runner.output)
    assert [r["failure"]["kind"] for r in rows if r["failure"]] == ["crash"] * 3
    assert hashes(rows) == clean - {*poison}


@pytest.mark.slow
def test_an_engine_that_dies_at_every_call_pauses_the_run_and_blames_no_audio(
    runner: Runner, audio: Path
) -> None:
    runner.tell(die_after_calls=0)
    outcome = runner(audio)
    assert outcome.exit is Exit.INCOMPLETE
    assert "that is the engine, not the audio" in outcome.message
    assert not (runner.output / "transcripts").exists()
    runner.tell()
    assert runner(audio).exit is Exit.OK
    assert not any(r["failure"] for r in transcripts(runner.output).to_pylist())


@pytest.mark.slow
def test_a_passing_engine_fault_is_tried_again_and_only_that_chunk(runner: Runner, audio: Path) -> None:
    runner(audio, output=runner.folder / "clean")
    victim = runner.calls()[1]["hash"]
    runner.log.unlink()
    runner.tell(transient_hashes=[victim])
    outcome = runner(audio)
    assert outcome.exit is Exit.INCOMPLETE
    tried = [c["hash"] for c in runner.calls()]
    assert tried.count(victim) == 3, "the budget of attempts, within one command"
    assert all(tried.count(h) == 1 for h in tried if h != victim)
    assert runner(audio).exit is Exit.INCOMPLETE
    assert len(runner.calls()) == len(tried), "the budget is spent"
    runner.tell()
    assert runner(audio, resume__retry_failed=[]).exit is Exit.OK
    assert [c["hash"] for c in runner.calls()[len(tried) :]] == [victim]
    assert runner.ui.surveys[0].num_done == 2
    assert not any(r["failure"] for r in transcripts(runner.output).to_pylist())


@pytest.mark.parametrize("gpus", [0.0, 1.0])
def test_decode_does_not_fuse_into_the_engine(
    one_ray: None, gpus: float, capsys: pytest.CaptureFixture[str]
) -> None:
    decode = DecodeSettings(AudioConfig(), VadConfig(), ChunkingConfig(), 16_000, 30.0, 1, 20)
    engine = TranscribeSettings(EngineConfig(name="fake"), "run", "print", "notes")
    use = Resources(1, 1.0, gpus, 1, 1.0, 8, 1 << 20)
    graph.windows(Snapshot("nowhere", 7), decode, engine, use).explain()
    physical = capsys.readouterr().out.rpartition("Physical Plan (Optimized)")[2]
    assert "ActorPoolMapOperator[MapBatches(Transcriber)]" in physical
    assert "MapBatches(Decode)]" in physical.replace("->MapBatches(Decode)", "MapBatches(Decode)")
    assert "MapBatches(Decode)->" not in physical


def test_one_block_per_unit(one_ray: None) -> None:
    for count in (1, 7, 60):
        assert ray.data.range(count, override_num_blocks=count).materialize().num_blocks() == count


def test_a_mended_manifest_leaves_no_phantom_rows(runner: Runner, audio: Path) -> None:
    source = runner.folder / "m.jsonl"
    paths = [str(p) for p in sorted(audio.iterdir())]
    good = [json.dumps({"audio_filepath": p}) for p in paths[:2]]
    dropped = json.dumps({"audio_filepath": paths[2], "offset": 0.0, "duration": 4.0})
    source.write_text("\n".join([*good, "{not json", "[]", dropped]))
    assert runner(source, manifest__max_bad_share=1.0).exit is Exit.OK
    other = runner.folder / "other.jsonl"
    other.write_text(f"{json.dumps({'audio_filepath': paths[2]})}\n{{neither")
    assert runner(other).exit is Exit.OK
    assert len(transcripts(runner.output)) == 7
    calls = len(runner.calls())

    # A pilot of the mended manifest reads it in part only: nothing is void yet.
    source.write_text("\n".join([*good, json.dumps({"audio_filepath": paths[2]})]))
    assert runner(source, limit=1).exit is Exit.OK
    assert len(transcripts(runner.output)) == 7

    outcome = runner(source, resume__retry_failed=[])
    assert outcome.exit is Exit.OK, outcome.message
    rows = transcripts(runner.output).to_pylist()
    assert sum(r["status"] == "failed" for r in rows) == 1, "the bad line of the other manifest stays"
    assert len(rows) == 5
    assert len(runner.calls()) == calls, "nothing is transcribed again"
    assert dict(outcome.rows())["other inputs"].startswith("2 rows")
    said = CliRunner().invoke(app, ["show", str(runner.output)]).output
    assert "2 rows of earlier inputs" in " ".join(said.split())
    assert CliRunner().invoke(app, ["assemble", str(runner.output)]).exit_code == 0
    assert len(transcripts(runner.output)) == 5, "older runs do not bring them back"
