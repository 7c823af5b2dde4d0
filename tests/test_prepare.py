"""What a run says of its model, before it starts."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from collector import listening
from dawnchorus import config, tracing
from dawnchorus.engines.whisper_weights import model_path
from dawnchorus.placement import Node, share_out
from dawnchorus.prepare import measured, prepare, survey
from dawnchorus.terminal import plan_rows

MANIFEST = str(Path(__file__).parent / "data" / "sample" / "manifest.jsonl")


def metadata(output: Path, **engine: str) -> dict[str, str]:
    tree = {"input": MANIFEST, "output": str(output), "engine": engine}
    return prepare(config.build(tree)).metadata()


def test_the_embedded_model_is_named_with_its_licence_and_language(tmp_path: Path) -> None:
    said = metadata(tmp_path, name="whisper")
    assert said["dawnchorus.model"] == "tiny.en"
    assert said["dawnchorus.licence"].startswith("MIT https://")
    assert said["dawnchorus.attribution"] == "Whisper by OpenAI"
    assert said["dawnchorus.languages"] == "English only"


def test_a_model_of_ones_own_has_no_licence_that_nobody_gave_it(tmp_path: Path) -> None:
    (tmp_path / "mine").symlink_to(model_path(None, None))
    said = metadata(tmp_path, name="whisper", model=str(tmp_path / "mine"))
    assert said["dawnchorus.licence"].startswith("unknown")
    assert "OpenAI" not in said["dawnchorus.attribution"]
    assert "dawnchorus.languages" not in said


def test_the_flag_for_other_languages_is_no_part_of_the_fingerprint(tmp_path: Path) -> None:
    tree = {"input": MANIFEST, "output": str(tmp_path), "engine": {"name": "whisper"}}
    prepared = prepare(config.build(tree))
    assert prepared.facts.english_only
    assert "english_only" not in str(prepared.fingerprint_facts)


def test_a_model_by_path_is_recorded_so_that_any_folder_finds_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "model").mkdir()
    monkeypatch.chdir(tmp_path)
    tree = {"input": MANIFEST, "output": "out", "engine": {"name": "fake", "model": "model"}}
    prepared = prepare(config.build(tree | {"llm": {"engine": "fake", "model": "some/name"}}))
    prepared.save()
    (saved,) = (tmp_path / "out" / "_runs").glob("*/run.json")
    told = json.loads(saved.read_text())["config"]
    assert told["engine"]["model"] == str(tmp_path / "model")
    assert told["llm"]["model"] == "some/name"


def test_what_a_program_is_told_with_is_not_saved(tmp_path: Path) -> None:
    """A webhook's address is a secret in its path, which nothing can tell from another."""
    tree = {"input": MANIFEST, "output": str(tmp_path), "engine": {"name": "fake"}}
    told = {"command": ["curl", "--data", "@-", "https://hooks.example.com/T0/B0/s3cret"]}
    prepare(config.build(tree | {"notify": told})).save()
    [saved] = tmp_path.glob("_runs/*/run.json")
    assert "s3cret" not in saved.read_text()
    assert json.loads(saved.read_text())["config"]["notify"]["command"] == ["curl"]


def test_a_run_that_was_given_its_name_saves_the_manifest_that_it_read_last(tmp_path: Path) -> None:
    listed, output = tmp_path / "list.jsonl", tmp_path / "out"
    for names in (["a.wav", "b.wav"], ["a.wav", "c.wav"]):
        listed.write_text("".join(f'{{"audio_filepath": "{n}"}}\n' for n in names))
        tree = {"input": str(listed), "output": str(output), "run_id": "nightly", "engine": {"name": "fake"}}
        prepared = prepare(config.build(tree))
        prepared.save()
        saved = pq.read_table(output / "_runs" / "nightly" / "manifest")["audio_filepath"].to_pylist()
        assert saved == [str(tmp_path / n) for n in names]
    [part] = output.rglob("*.parquet")
    stamp = part.stat().st_mtime_ns
    prepared.save()
    assert part.stat().st_mtime_ns == stamp


def test_preparing_is_a_span_of_the_trace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tree = {"input": MANIFEST, "output": str(tmp_path), "engine": {"name": "fake"}}
    with listening() as collector:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.endpoint)
        with tracing.root("plan"):
            prepare(config.build(tree))
    assert {s.name for s in collector.spans} == {"plan", "prepare"}


@pytest.mark.parametrize(("wall", "told"), [(20.0, None), (90.0, 12.0)])
def test_a_short_run_says_nothing_of_the_speed_to_come(
    tmp_path: Path, wall: float, told: float | None
) -> None:
    tree = {"input": MANIFEST, "output": str(tmp_path), "engine": {"name": "fake"}}
    prepared = prepare(config.build(tree))
    (tmp_path / "_runs" / "r").mkdir(parents=True)
    spent = {"rtfx": 12.0, "wall_seconds": wall, "audio_seconds": 7200.0}
    model = {"engine": "fake", "model": prepared.facts.model}
    about = {"time": spent, "model": model, "made_at": 1.0, "cost": {"gpu_hours": 0.5}}
    (tmp_path / "_runs" / "r" / "report.json").write_text(json.dumps(about))
    assert measured(prepared) == (told, told and 0.25)
    (tmp_path / "_runs" / "r" / "report.json").write_text(
        json.dumps(about | {"model": model | {"model": "x"}})
    )
    assert measured(prepared) == (None, None), "another model has another speed"


def test_the_price_of_the_plan_is_that_of_the_pilot_whatever_the_number_of_gpus(tmp_path: Path) -> None:
    """A pilot on one GPU, then eight: eight times as fast, and not eight times as dear."""
    tree = {"input": MANIFEST, "output": str(tmp_path), "engine": {"name": "fake"}, "cost": {"gpu_hour": 2.0}}
    prepared = prepare(config.build(tree | {"workers": {"gpus_per_engine": 1.0}}))
    work = replace(survey(prepared), measured_rtfx=100.0, measured_gpus=0.01)
    work = replace(work, pending_seconds=np.full(len(work.pending), 3.6e6 / len(work.pending)))
    for gpus in (1.0, 8.0):
        use = share_out(prepared.config, [Node(64.0, gpus, "H100")])
        assert dict(plan_rows(prepared, work, use))["will cost"].startswith("about $20.00,")
