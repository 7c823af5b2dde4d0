"""The report: figures that add up, a page that says them, and nothing that strangers could make of it."""

from __future__ import annotations

import html
import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Mapping
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import outputs
from dawnchorus import config, ids, installing, report, reports, schema
from dawnchorus.errors import Fenced
from dawnchorus.reconcile import Reconciliation
from dawnchorus.report import charts, tables, typed, words
from dawnchorus.report.accuracy import Accuracy
from outputs import chunk, end_row, failed, segment, transcript

T0 = 1_700_000_000.0
EVIL = "<script>alert(1)</script>\"'><img src=x onerror=alert(1)>&amp;"


def archive(folder: Path) -> Path:
    """Four recordings in two attempts: 100 s with 80 s of speech, 50 s, silence, and a text file."""
    a = transcript("s3://b/a.wav", segment(0, 80, "one two three four"), duration=100.0)
    a["coverage"] = {"decoded": 100.0, "transcribed": 80.0, "silent": 20.0, "failed": 0.0}
    b = transcript("s3://b/b.wav", segment(0, 40, "five six"), duration=50.0, flags=["partial"])
    b["coverage"] = {"decoded": 50.0, "transcribed": 38.0, "silent": 10.0, "failed": 2.0}
    b["failure"] = outputs.failure("damaged_audio", "Two seconds are damaged.")
    silence = transcript("s3://b/c.wav", duration=10.0)
    silence["coverage"] = {"decoded": 10.0, "transcribed": 0.0, "silent": 10.0, "failed": 0.0}
    text = failed("s3://b/d.mp3", "not_audio", "This is no audio: it looks like a text file.")
    stranger = transcript("s3://b/of-another-run.wav", segment(0, 9, "no"))
    a["text"] = "one two three for"
    rows = [a, b, silence, text]
    outputs.write(folder, "transcripts", [*rows, stranger])
    first = [
        chunk(a, 0, 0.0, 30.0, worker="h:1", began=T0 + 10, engine=3.0, wait=1.0),
        chunk(a, 1, 30.0, 60.0, worker="h:1", began=T0 + 10, engine=3.0),
    ]
    second = [
        chunk(a, 2, 60.0, 80.0, worker="h:2", began=T0 + 1010, engine=2.0, wait=2.0, attempt=3),
        end_row(a, 3, attempt=3, decode=1.0),
        chunk(b, 0, 0.0, 40.0, worker="h:2", began=T0 + 1014, engine=4.0, wait=0.0, attempt=3),
        end_row(b, 1, attempt=3, decode=0.5),
        end_row(silence, 0, attempt=3, decode=0.25),
        chunk(stranger, 0, 0.0, 9.0, run_id="another", engine=99.0),
    ]
    outputs.write(folder, "chunks", first, "part-a")
    outputs.write(folder, "chunks", second, "part-b")
    run = outputs.save_run(folder, rows, vad={"threshold": 0.4})
    fence(folder, 1, T0)
    fence(folder, 2, T0 + 500, run_id="assemble")
    fence(folder, 3, T0 + 1000)
    return run


def fence(folder: Path, epoch: int, began: float, run_id: str = outputs.RUN_ID) -> None:
    place = folder / "_runs" / "_fence"
    place.mkdir(parents=True, exist_ok=True)
    (place / f"{epoch:08d}.json").write_text(json.dumps({"epoch": epoch, "run_id": run_id, "time": began}))


FOUND = Reconciliation(num_recordings=4, num_ok=2, num_empty=1, num_failed=1, num_partial=1)


def made(folder: Path, found: Reconciliation = FOUND, **more: Any) -> dict[str, Any]:
    return report.make(str(folder), outputs.RUN_ID, found, T0 + 1000, now=T0 + 1040, **more)


def page_of(folder: Path) -> str:
    return (folder / "_runs" / outputs.RUN_ID / "report.html").read_text(encoding="utf-8")


def shape(value: Any) -> Any:
    """Keys all the way down; lists by their first entry."""
    if isinstance(value, Mapping):
        return {k: shape(v) for k, v in value.items()}
    return [shape(value[0])] if isinstance(value, list) and value and isinstance(value[0], Mapping) else "."


def test_json_keys_are_frozen(tmp_path: Path) -> None:
    archive(tmp_path)
    found = shape({k: v for k, v in made(tmp_path).items() if k != "config"})
    frozen = Path(__file__).parent / "data" / "frozen" / "report_keys.json"
    assert found == json.loads(frozen.read_text(encoding="utf-8"))


def test_a_slice_that_failed_is_no_audio(tmp_path: Path) -> None:
    """It has the length that was asked for; figures were scaled by it."""
    archive(tmp_path)
    before = made(tmp_path)
    lost = failed("s3://b/d.mp3", "not_audio", "This is no audio.") | {"offset": 0.0, "duration": 3600.0}
    totals = tables.Rows()
    batch = pa.RecordBatch.from_pylist([lost], schema=schema.TRANSCRIPTS)
    totals.add(batch, np.zeros(1, np.int64), np.zeros(0, np.int64))
    assert (totals.audio_seconds, totals.longest) == (0.0, [])
    assert before["coverage"]["audio"] == 160.0


def test_what_another_version_reported_is_made_anew_or_left(tmp_path: Path) -> None:
    run = archive(tmp_path)
    old = made(tmp_path) | {"report_version": 1, "cost": {}}
    (run / "report.json").write_text(json.dumps(old))
    report.renew_answers(str(tmp_path), outputs.RUN_ID)
    assert json.loads((run / "report.json").read_text()) == old
    report.renew_rows(str(tmp_path), outputs.RUN_ID, Reconciliation())
    assert json.loads((run / "report.json").read_text())["report_version"] == report.REPORT_VERSION


def test_what_is_typed_again_is_what_was_meant() -> None:
    overrides = typed.commands(
        config.build(
            {"input": "i", "output": "o", "run_id": "20240131", "engine": {"revision": "1e5"}}
        ).model_dump(),
        "o",
    )["resume"]
    words_ = [w for w in shlex.split(overrides) if "=" in w]
    again = config.build({"input": "i", "output": "o"}, words_)
    assert (again.run_id, again.engine.revision) == ("20240131", "1e5")


def test_what_is_returned_is_what_is_written(tmp_path: Path) -> None:
    run = archive(tmp_path)
    assert made(tmp_path) == json.loads((run / "report.json").read_text(encoding="utf-8"))
    assert reports.page_url(str(tmp_path), outputs.RUN_ID) == str(run / "report.html")


def test_only_this_runs_recordings_count(tmp_path: Path) -> None:
    archive(tmp_path)
    found = made(tmp_path)
    assert found["coverage"] == {
        "audio": 160.0,
        "decoded": 160.0,
        "transcribed": 118.0,
        "silent": 40.0,
        "failed": 2.0,
    }
    assert found["totals"]["words"] == 6
    assert found["time"]["num_chunks"] == 4
    assert "of-another-run" not in json.dumps(found)


def test_time_adds_up(tmp_path: Path) -> None:
    archive(tmp_path)
    found = made(tmp_path, cpus_per_engine=2.0, gpus_per_engine=0.5, accelerator="H100")
    paid = 15 / 3600 * 0.5 * 2.69
    assert found["cost"]["dollars"] == pytest.approx(paid)
    assert found["cost"]["per_1000_hours"] == pytest.approx(paid / (160 / 3600) * 1000)
    assert found["cost"]["said"][-1].endswith("this run was dearer.")
    assert "$0.01 at $2.69 per H100 hour" in " ".join(found["cost"]["said"])
    spent = found["time"]
    first, second = found["attempts"]
    assert (first["attempt"], second["attempt"]) == (1, 3), "assembling by hand is no attempt"
    assert first["wall_seconds"] == pytest.approx(16.0), "to its last commit"
    assert second["wall_seconds"] == pytest.approx(40.0), "until now"
    assert spent["wall_seconds"] == pytest.approx(56.0)
    assert spent["audio_seconds"] == pytest.approx(160.0), "pauses and silence included"
    assert spent["rtfx"] == pytest.approx(160 / 56)
    assert (spent["engine_seconds"], spent["wait_seconds"]) == (12.0, 3.0)
    assert spent["idle_share"] == pytest.approx(0.2)
    assert spent["decode_seconds"] == pytest.approx(1.75)
    assert {w["worker"]: w["idle_share"] for w in found["workers"]} == pytest.approx(
        {"h:1": 1 / 7, "h:2": 0.25}
    )
    assert [w["num_windows"] for w in sorted(found["workers"], key=lambda w: w["worker"])] == [1, 2]
    assert found["cost"]["gpu_hours"] == pytest.approx(15 / 3600 / 2)
    assert found["cost"]["cpu_hours"] == pytest.approx((15 * 2 + 1.75) / 3600)
    assert made(tmp_path)["cost"] == found["cost"], "a command that had no engine forgets no bill"


def test_rtfx_over_time_is_the_audio_spread_over_the_work(tmp_path: Path) -> None:
    archive(tmp_path)
    data = made(tmp_path)["rtfx_over_time"]
    step = data[0]["step_seconds"]
    first = np.array(data[0]["rtfx"])
    assert first.sum() * step == pytest.approx(60 * 160 / 120, rel=1e-3)
    assert not first[: int(10 / step)].any(), "nothing in the ten seconds before the first call"
    assert [a["attempt"] for a in data] == [1, 3]


def test_chunk_lengths_and_pace(tmp_path: Path) -> None:
    archive(tmp_path)
    found = made(tmp_path)
    lengths = found["chunk_seconds"]
    assert (lengths["edges"][0], lengths["edges"][-1]) == (19.5, 40.0)
    assert sum(lengths["counts"]) == 4
    assert lengths["counts"][lengths["edges"].index(29.5)] == 2, "30 s ends the bin that ends at 30 s"
    assert sum(found["words_per_minute"]["counts"]) == 2


def test_a_command_that_did_nothing_leaves_the_speed_as_it_was(tmp_path: Path) -> None:
    archive(tmp_path)
    before = made(tmp_path)["time"]
    fence(tmp_path, 4, T0 + 5000)
    after = report.make(str(tmp_path), outputs.RUN_ID, FOUND, T0 + 5000, now=T0 + 5009)["time"]
    assert {k: after[k] for k in ("rtfx", "wall_seconds")} == {k: before[k] for k in ("rtfx", "wall_seconds")}


def test_flags_say_what_they_mean_and_which_files_have_them(tmp_path: Path) -> None:
    rows = [
        transcript(f"s3://b/{n}.wav", segment(0, 1, f"text {n}"), flags=["redone", "omission"][: 1 + n % 2])
        for n in range(8)
    ]
    outputs.write(tmp_path, "transcripts", rows)
    outputs.save_run(tmp_path, rows)
    flags = made(tmp_path)["flags"]
    assert [(f["flag"], f["num"], f["weight"]) for f in flags] == [
        ("omission", 4, "doubt"),
        ("redone", 8, "note"),
    ]
    assert [e["text"] for e in flags[0]["examples"]] == ["text 1", "text 3", "text 5"]
    page = page_of(tmp_path)
    assert page.index("seem to have no words") < page.index("heard it again in its full window")


def test_a_few_transcripts_are_on_the_page_without_what_steers(tmp_path: Path) -> None:
    long = "Good morning. " * 40
    rows = [transcript("s3://b/a.wav", segment(0, 1, f"\u202eolleh\x07 {EVIL}"))]
    rows += [transcript(f"s3://b/{n}.wav", segment(0, 1, long)) for n in range(20)]
    outputs.write(tmp_path, "transcripts", rows)
    outputs.save_run(tmp_path, rows)
    told = made(tmp_path)["transcripts"]
    assert len(told) == 10
    assert max(len(t["text"]) for t in told) == 201
    page = page_of(tmp_path)
    assert "olleh" in page
    assert "<script" not in page
    assert not {"\u202e", "\x07"} & set(page)


@pytest.mark.parametrize(("num", "tile"), [(5, False), (60, True)])
def test_a_rate_of_very_few_words_is_no_headline(tmp_path: Path, num: int, tile: bool) -> None:
    wer = scored(tmp_path, transcript("s3://b/1", segment(0, 1, "no " * 22), text="yes " * num))
    assert wer["num_words"] == num
    page = page_of(tmp_path)
    assert ("word error rate" in page) is tile
    assert ("it says little" in page) is not tile


def test_one_value_is_no_histogram(tmp_path: Path) -> None:
    archive(tmp_path)
    made(tmp_path)
    assert "Length of chunks" not in page_of(tmp_path)


@pytest.mark.parametrize(("rtfx", "said"), [(31.6, "32 times"), (1.84, "1.8 times"), (0.1, "0.10 times")])
def test_speed_has_one_wording(rtfx: float, said: str) -> None:
    assert words._speed(rtfx) == f"{said} as fast as it plays"


def test_failures_by_kind_whole_ones_first(tmp_path: Path) -> None:
    archive(tmp_path)
    failures = made(tmp_path)["failures"]
    assert [(k["kind"], k["num"], k["partial"]) for k in failures["kinds"]] == [
        ("not_audio", 1, False),
        ("damaged_audio", 1, True),
    ]
    assert failures["kinds"][0]["examples"][0]["audio_filepath"] == "s3://b/d.mp3"
    assert "take it off the manifest" in failures["kinds"][0]["hint"]
    assert failures["num"] == len(failures["rows"]) == 2


def test_page_answers_first(tmp_path: Path) -> None:
    archive(tmp_path)
    made(tmp_path)
    page = page_of(tmp_path)
    text = re.sub(r"<[^>]+>", " ", page[page.index("<body>") :])
    assert "All 4 recordings are accounted for; 1 failed." in text
    assert "Failed: 1 not audio. 1 more have gaps" in text
    assert "2.9 times as fast as it plays" in text
    assert "dawnchorus run vad.threshold=0.4 --input s3://in/manifest.jsonl" in text
    assert "CC-BY-4.0" in text
    assert "by nobody" in text


def scored(folder: Path, *rows: dict[str, Any]) -> dict[str, Any]:
    outputs.write(folder, "transcripts", rows)
    outputs.save_run(folder, rows)
    wer: dict[str, Any] = made(folder)["wer"]
    return wer


def test_word_error_rate_of_rows_with_a_reference(tmp_path: Path) -> None:
    wer = scored(
        tmp_path,
        transcript("s3://b/1", segment(0, 1, "The cat sat, on two mats."), text="the cat sat on 2 mats"),
        transcript("s3://b/2", segment(0, 1, "One wrong word"), text="one right word"),
        transcript("s3://b/3", text="never heard"),
        transcript("s3://b/4", segment(0, 1, "no reference")),
        failed("s3://b/5", "crash", "no", text="not counted"),
    )
    assert wer["wer"] == pytest.approx(3 / 11)
    assert (wer["substitutions"], wer["deletions"], wer["insertions"]) == (1, 2, 0)
    assert (wer["num_words"], wer["num_recordings"], wer["note"]) == (11, 3, "")
    assert [w["audio_filepath"] for w in wer["worst"]] == ["s3://b/3", "s3://b/2"]
    assert "27.27% over 11 reference words in 3 recordings" in page_of(tmp_path)


def test_without_the_scoring_packages_the_report_says_so(tmp_path: Path) -> None:
    """In a process that cannot find them."""
    rows = [transcript("s3://b/1", segment(0, 1, "a"), text="a")]
    outputs.write(tmp_path / "out", "transcripts", rows)
    outputs.save_run(tmp_path / "out", rows)
    (tmp_path / "jiwer.py").write_text("raise ImportError('jiwer')")
    make = (
        "import sys; from dawnchorus import report; from dawnchorus.reconcile import Reconciliation as R; "
        f"made = report.make(sys.argv[1], {outputs.RUN_ID!r}, R(num_recordings=1, num_ok=1), 0.0); "
        "print(made['wer']['wer'], made['wer']['note'])"
    )
    done = subprocess.run(
        [sys.executable, "-c", make, str(tmp_path / "out")],
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.startswith("None Not scored: 1 recording with a reference. Scoring needs")
    assert html.escape(installing.command("score")) in page_of(tmp_path / "out")


def test_of_very_many_references_a_sample_is_scored() -> None:
    rows = [transcript(f"s3://b/{n}", segment(0, 1, "a b c d"), text="a b c x") for n in range(200)]

    def result(some: list[dict[str, Any]], budget: int) -> dict[str, Any]:
        accuracy = Accuracy(budget=budget)
        accuracy.add(pa.RecordBatch.from_pylist(some, schema=schema.TRANSCRIPTS))
        return accuracy.result()

    sample = result(rows, 7 * 50)
    assert 10 < sample["num_recordings"] <= 50
    assert sample["wer"] == pytest.approx(0.25)
    assert "of 200 recordings" in sample["note"]
    assert result(rows, 7 * 200)["num_recordings"] == 200


@pytest.mark.parametrize(
    ("counts", "sentence"),
    [
        ({"num_recordings": 3, "num_ok": 3}, "All 3 recordings are transcribed."),
        ({"num_recordings": 1, "num_ok": 1}, "The one recording is transcribed."),
        ({"num_recordings": 3, "num_failed": 3}, "All 3 recordings failed."),
        ({"num_recordings": 3, "num_ok": 1, "num_missing": 2}, "2 of 3 recordings are not done yet."),
        ({"num_recordings": 3, "num_problems": 1, "problems": ["x"]}, "The tables do not add up in 1 place."),
        ({"num_recordings": 0}, "There was nothing to transcribe."),
    ],
)
def test_headline(tmp_path: Path, counts: dict[str, Any], sentence: str) -> None:
    archive(tmp_path)
    assert made(tmp_path, Reconciliation(**counts))["headline"] == sentence


class Elements(HTMLParser):
    """Every element with its attributes, and that they close in order."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))
        if tag not in ("meta", "br"):
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def parsed(page: str) -> list[tuple[str, dict[str, str | None]]]:
    elements = Elements()
    elements.feed(page)
    assert not elements.open
    return elements.found


def evil(folder: Path) -> str:
    rows = [
        transcript(f"s3://b/{EVIL}.wav", segment(0, 9, EVIL), flags=[EVIL], text=EVIL, duration=9.0),
        failed(f"s3://b/{EVIL}.mp3", "not_audio", EVIL, failure=outputs.failure(EVIL, EVIL, stage=EVIL)),
    ]
    outputs.write(folder, "transcripts", rows)
    outputs.write(folder, "chunks", [chunk(rows[0], 0, 0.0, 9.0, worker=EVIL, began=T0, engine=1.0)])
    outputs.save_run(folder, rows, engine={"name": EVIL, "options": {"x": EVIL}})
    found = Reconciliation(num_recordings=2, num_problems=1, problems=[EVIL])
    made(folder, found)
    return page_of(folder)


def test_nothing_from_data_becomes_markup(tmp_path: Path) -> None:
    page = evil(tmp_path)
    assert page.count("alert(1)") > 8, "it is all there, as text"
    elements = parsed(page)
    assert {tag for tag, _ in elements}.isdisjoint({"script", "img", "a", "iframe", "link", "object"})
    assert not any(name.startswith("on") for _, attributes in elements for name in attributes)


def test_page_needs_nothing_from_elsewhere(tmp_path: Path) -> None:
    archive(tmp_path)
    made(tmp_path)
    page = page_of(tmp_path)
    for _, attributes in parsed(page):
        assert not {"src", "href", "srcset", "action"} & set(attributes)
    style = page[page.index("<style>") : page.index("</style>")]
    assert "@import" not in style
    assert "url(" not in style
    assert "default-src 'none'" in page.replace("&#x27;", "'")
    pictures = [a for tag, a in parsed(page) if a.get("role") == "img"]
    assert len(pictures) >= 4
    assert all(a["aria-label"] for a in pictures)


def test_secrets_are_not_in_the_report(tmp_path: Path) -> None:
    rows = [failed("https://ann:hunter2@h/a.wav?X-Amz-Signature=hunter2", "refused", "no")]
    outputs.write(tmp_path, "transcripts", rows)
    told = ["curl", "https://ann:hunter2@h/hook"]
    options = {"hub_token": "hunter2", "hosts": ["s3://ann:hunter2@bucket"]}
    run = outputs.save_run(tmp_path, rows, engine={"options": options}, notify={"command": told})
    made(tmp_path, Reconciliation(num_recordings=1, num_failed=1))
    assert "hunter2" not in (run / "report.json").read_text() + (run / "report.html").read_text()


def test_many_long_failures_stay_a_small_page(tmp_path: Path) -> None:
    rows = [failed(f"s3://b/{n}{'<&>' * 300}.wav", "not_audio", '"<&' * 600) for n in range(1_200)]
    outputs.write(tmp_path, "transcripts", rows)
    run = outputs.save_run(tmp_path, rows)
    found = made(tmp_path, Reconciliation(num_recordings=1_200, num_failed=1_200))
    assert (found["failures"]["num"], len(found["failures"]["rows"])) == (1_200, 1_000)
    assert (run / "report.html").stat().st_size < 2_000_000
    assert "The other 200" in page_of(tmp_path)
    assert "WHERE failure IS NOT NULL" in page_of(tmp_path)


def test_a_run_that_committed_nothing(tmp_path: Path) -> None:
    outputs.save_run(tmp_path, [transcript("s3://b/a.wav")])
    found = made(tmp_path, Reconciliation(num_recordings=1, num_missing=1))
    assert found["time"]["rtfx"] == 0.0
    assert found["chunk_seconds"]["counts"] == []
    parsed(page_of(tmp_path))


def test_keys_are_the_first_64_bits(tmp_path: Path) -> None:
    made_ids = [ids.recording_id(f"s3://b/{n}") for n in range(50)]
    array = pa.array(["0" * 32, *made_ids])
    expected = [int(i[:16], 16) for i in array.to_pylist()]
    assert tables.keys(array).tolist() == expected
    assert tables.keys(array.slice(7, 9)).tolist() == expected[7:16]
    wanted = np.sort(tables.keys(array))
    assert (wanted[tables.positions(wanted, tables.keys(array))] == tables.keys(array)).all()
    assert tables.positions(wanted, np.array([12345], np.uint64)).tolist() == [-1]


def test_short() -> None:
    assert [words.short(n) for n in (0, 999_999, 1_681_558, 2_500_000_000)] == [
        "0",
        "999,999",
        "1.68 M",
        "2,500 M",
    ]


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0.0 s"), (9.96, "10 s"), (99.4, "99 s"), (102, "2 min"), (11520, "3 h 12 min"), (7.2e6, "2,000 h")],
)
def test_length(seconds: float, text: str) -> None:
    assert words.length(seconds) == text


def test_cut_keeps_both_ends() -> None:
    assert words.cut("abcdefgh", 8) == "abcdefgh"
    assert words.cut("abcdefghi", 5) == "ab…hi"


def test_median_of_a_histogram() -> None:
    data = {"edges": [0.0, 10.0, 20.0], "counts": [2, 6], "open_ended": False}
    assert "half of them below 13.3 s" in charts.histogram("t", data, "s", "chunks")


ALONE = """
import json, re, sys
from dawnchorus import report
from dawnchorus.reconcile import Reconciliation

def peak():
    return int(re.search(r"VmHWM:\\s+(\\d+)", open("/proc/self/status").read())[1]) / 1024

before, num = peak(), int(sys.argv[3])
facts = Reconciliation(num_recordings=num, num_ok=num)
found = report.make(sys.argv[1], sys.argv[2], facts, 1000.0, now=1040.0)
print(json.dumps([found["totals"]["words"], before, peak()]))
"""


@pytest.mark.slow
def test_a_million_recordings(tmp_path: Path) -> None:
    """Figures of a million rows: bounded memory, and a page of the usual size."""
    num, files = 1_000_000, 20
    names = pa.array([f"{n:032x}" for n in np.random.default_rng(0).permutation(num)])
    row = transcript("s3://b/a.wav", segment(0, 9, "some words"), duration=600.0)
    base = pa.Table.from_pylist([{**row, "segments": []}], schema=schema.TRANSCRIPTS)
    (tmp_path / "transcripts").mkdir()
    for n in range(files):
        table = base.take(pa.array(np.zeros(num // files, np.int64)))
        table = table.set_column(0, schema.TRANSCRIPTS.field(0), names.slice(n * num // files, num // files))
        pq.write_table(table, tmp_path / "transcripts" / f"part-{n:03d}.parquet")
    run = outputs.save_run(tmp_path, [])
    manifest = pa.table({"recording_id": names})
    pq.write_table(manifest, run / "manifest" / "part-00000.parquet")
    command = [sys.executable, "-c", ALONE, str(tmp_path), outputs.RUN_ID, str(num)]
    said = subprocess.run(command, check=True, capture_output=True, text=True, timeout=280).stdout
    num_words, imported_mb, peak_mb = json.loads(said)
    print(f"{peak_mb:.0f} MB at most, {imported_mb:.0f} of it before it began")
    assert num_words == 2 * num
    assert peak_mb - imported_mb < 300
    assert (run / "report.html").stat().st_size < 200_000


def test_answers_have_a_section_where_anything_was_asked(tmp_path: Path) -> None:
    archive(tmp_path)
    assert "<h2>Answers</h2>" not in (made(tmp_path) and page_of(tmp_path))
    said = {
        "name": "summary",
        "text": "<b>Lamps</b>",
        "status": "ok",
        "flags": ["partial"],
        "finish_reason": "length",
    }
    bad = {"name": "summary", "status": "failed", "failure": outputs.failure("crash", "It died.", "answer")}
    rows = [
        transcript("s3://b/a.wav", segment(0, 80, "one two"), answers=[said]),
        transcript("s3://b/b.wav", segment(0, 40, "five"), answers=[bad]),
        transcript("s3://b/of-another-run.wav", segment(0, 9, "no"), answers=[said]),
    ]
    outputs.write(tmp_path, "transcripts", rows)
    spent = {"worker": "h:1", "started_at": 0.0, "engine_seconds": 2.0, "wait_seconds": 0.0}
    step = {
        "kind": "answer",
        "transcript_hash": "t",
        "name": "summary",
        "answer_fingerprint": "f",
        "model": "m",
    }
    steps = [
        {**step, "recording_id": r["recording_id"], "step_id": f"{i}", "num_tokens": 10, "timing": spent}
        for i, r in enumerate(rows[:2])
    ]
    outputs.write(tmp_path, "answers", steps)
    report.renew_answers(str(tmp_path), outputs.RUN_ID)
    page = page_of(tmp_path)
    again = json.loads((tmp_path / "_runs" / outputs.RUN_ID / "report.json").read_text(encoding="utf-8"))
    [entry] = again["answers"]
    assert (entry["ok"], entry["failed"], entry["partial"], entry["cut"]) == (1, 1, 1, 1)
    assert (entry["num_tokens"], entry["engine_seconds"], len(entry["examples"])) == (20, 4.0, 2)
    assert "<h2>Answers</h2>" in page
    assert "&lt;b&gt;Lamps" in page
    assert "crash: It died." in page


def test_who_was_taken_over_reports_nothing(tmp_path: Path) -> None:
    """A report quotes transcripts, and somebody may just have made the output forget one."""
    archive(tmp_path)
    made(tmp_path, epoch=3)
    fence(tmp_path, 4, T0 + 2000, run_id="forget")
    files = {p: p.stat().st_mtime_ns for p in tmp_path.rglob("report.*")}
    with pytest.raises(Fenced):
        made(tmp_path, epoch=3)
    with pytest.raises(Fenced):
        report.renew_answers(str(tmp_path), outputs.RUN_ID, 3)
    assert {p: p.stat().st_mtime_ns for p in tmp_path.rglob("report.*")} == files
    assert len(files) == 2
