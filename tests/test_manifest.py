"""manifest: every shape, every kind of bad line, duplicates, pilots, and what a snapshot promises."""

from __future__ import annotations

import csv
import gzip
import io
import json
import math
import os
import subprocess
import sys
import threading
from datetime import date
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dawnchorus import config, ids, manifest, storage
from dawnchorus.errors import ConfigError, ManifestError, StorageUnavailable
from dawnchorus.manifest.duplicates import CONFLICTING, IDENTICAL, NEW, Seen, id_array
from dawnchorus.manifest.sources import expand_range
from dawnchorus.schema import RECORDINGS
from s3_server import S3Server


def run_config(address: str | Path, **keys: Any) -> config.RunConfig:
    return config.build({"input": str(address), "output": "/tmp/out", **keys})


def rows_of(address: str | Path, **keys: Any) -> list[dict[str, Any]]:
    """All rows of an input; the bad-line rule is the snapshot's, not the reader's."""
    batches = list(manifest.read(run_config(address, **keys)))
    assert all(b.schema.equals(RECORDINGS) for b in batches)
    return [row for b in batches for row in b.to_pylist()]


def snapshot_of(address: str | Path, folder: Path, **keys: Any) -> manifest.Snapshot:
    return manifest.snapshot(run_config(address, **keys), str(folder))


def lines(path: Path, *rows: dict[str, Any] | bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    encoded = (r if isinstance(r, bytes) else json.dumps(r).encode() for r in rows)
    path.write_bytes(b"\n".join(encoded) + b"\n")
    return path


def kinds(rows: list[dict[str, Any]]) -> list[str | None]:
    return [r["failure"] and r["failure"]["kind"] for r in rows]


def measured(code: str, *arguments: Path) -> tuple[Any, float, float]:
    """What `code` leaves in `result`, its CPU seconds and its peak memory in MB, in a process of its own."""
    script = (
        "import json, re, sys, time; from dawnchorus import config, manifest\n"
        f"{code}"
        "peak = re.search(r'VmHWM:\\s+(\\d+)', open('/proc/self/status').read())[1]\n"
        "print(json.dumps([result, time.process_time(), int(peak) / 1024]))"
    )
    command = [sys.executable, "-c", script, *map(str, arguments)]
    result, cpu_seconds, peak_mb = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
    return result, cpu_seconds, peak_mb


# --------------------------------------------------------------------------------------------- shapes


def test_nemo_lines_become_recordings(tmp_path: Path) -> None:
    path = lines(
        tmp_path / "calls.jsonl",
        {"audio_filepath": "a b.wav", "duration": 3.5, "text": "hé", "speaker": 7, "tags": ["x"]},
        {"audio_filepath": "/abs/b.wav", "offset": 0, "duration": 2},
        {"audio_filepath": "s3://bucket/c.wav", "offset": 1.5},
    )
    whole, slice_, to_the_end = rows_of(path)
    assert whole == {
        "recording_id": ids.recording_id(f"file://{tmp_path}/a b.wav"),
        "audio_filepath": f"{tmp_path}/a b.wav",
        "offset": None,
        "duration": None,
        "claimed_duration": 3.5,
        "text": "hé",
        "metadata": '{"speaker":7,"tags":["x"]}',
        "line": "calls.jsonl:1",
        "failure": None,
        "size_bytes": None,
    }
    assert (slice_["offset"], slice_["duration"], slice_["claimed_duration"]) == (0.0, 2.0, None)
    assert slice_["recording_id"] == ids.recording_id("file:///abs/b.wav", 0.0, 2.0)
    assert to_the_end["recording_id"] == ids.recording_id("s3://bucket/c.wav", 1.5)
    assert to_the_end["audio_filepath"] == "s3://bucket/c.wav"


@pytest.mark.parametrize("name", ["m.jsonl", "m.json", "m.jsonl.gz", "m.list", "m.ndjson"])
def test_json_lines_by_any_name(tmp_path: Path, name: str) -> None:
    data = b'\xef\xbb\xbf{"audio_filepath": "a.wav"}\r\n\r\n{"audio_filepath": "b.wav"}'
    (tmp_path / name).write_bytes(gzip.compress(data) if name.endswith("gz") else data)
    rows = rows_of(tmp_path / name)
    assert [r["line"] for r in rows] == [f"{name}:1", f"{name}:3"]
    assert kinds(rows) == [None, None]


def test_shards_are_read_in_order(tmp_path: Path) -> None:
    for i in range(11):
        lines(tmp_path / f"man_{i}.json", {"audio_filepath": f"{i}.wav"})
    wanted = [f"{i}.wav" for i in range(11)]
    for name in ("man__OP_0..10_CL_.json", "man_{0..10}.json"):
        assert [os.path.basename(r["audio_filepath"]) for r in rows_of(tmp_path / name)] == wanted
    globbed = [os.path.basename(r["audio_filepath"]) for r in rows_of(tmp_path / "man_*.json")]
    assert globbed == sorted(wanted)


def test_ranges_keep_their_zeros() -> None:
    assert expand_range("s3://b/m_{08..10}.json") == [f"s3://b/m_{n}.json" for n in ("08", "09", "10")]
    assert len(expand_range("a_{0..3}_b_{0..4}")) == 20
    with pytest.raises(ManifestError):
        expand_range("m_{0..999999999}.json")
    with pytest.raises(ManifestError, match="too many"):
        expand_range("m_{0..999}_{0..999}.json")


@pytest.mark.parametrize(
    ("name", "delimiter"), [("m.csv", ","), ("m.tsv", "\t"), ("m.csv", ";"), ("m.txt", "\t")]
)
def test_tables(tmp_path: Path, name: str, delimiter: str) -> None:
    text = io.StringIO()
    writer = csv.writer(text, delimiter=delimiter)
    writer.writerow(["audio_filepath", "offset", "duration", "text", "speaker"])
    writer.writerow(["a, b.wav", "1.5", "2", 'says; "hi"', "7"])
    writer.writerow(["c.wav", "", "", "", ""])
    (tmp_path / name).write_bytes(b"\xef\xbb\xbf" + text.getvalue().encode())
    first, second = rows_of(tmp_path / name)
    assert first["audio_filepath"] == f"{tmp_path}/a, b.wav"
    assert (first["offset"], first["duration"], first["text"]) == (1.5, 2.0, 'says; "hi"')
    assert first["metadata"] == '{"speaker":"7"}'
    assert first["line"] == f"{name}:2"
    assert (second["offset"], second["text"], second["metadata"]) == (None, None, "{}")


def test_a_tsv_may_hold_bare_quotation_marks(tmp_path: Path) -> None:
    (tmp_path / "m.tsv").write_text('path\tsentence\na.wav\t"Well," she said\nb.wav\tno "end\n')
    assert [json.loads(r["metadata"])["sentence"] for r in rows_of(tmp_path / "m.tsv")] == [
        '"Well," she said',
        'no "end',
    ]


def test_bad_rows_of_a_table(tmp_path: Path) -> None:
    (tmp_path / "m.csv").write_bytes(
        b'audio_filepath,offset\na.wav,1\nb.wav,1,2\n\xff.wav,1\n"c"c.wav,1\n,3\nd.wav,x\n"e\ne.wav",1\n'
        + b"f" * (1 << 20)
        + b",1\ng.wav,1\n"
    )
    rows = rows_of(tmp_path / "m.csv")
    assert kinds(rows) == [
        None,
        "wrong_columns",
        "not_utf8",
        "invalid_csv",
        "missing_path",
        "bad_number",
        None,
        "line_too_long",
        None,
    ]
    assert [r["line"] for r in rows][-3:] == ["m.csv:8", "m.csv:10", "m.csv:11"]


def test_an_open_quotation_mark_swallows_no_rows(tmp_path: Path) -> None:
    rest = "".join(f"{i}.wav,x\n" for i in range(1000))
    (tmp_path / "m.csv").write_text('audio_filepath,text\na.wav,"open\n' + rest)
    with pytest.raises(ManifestError, match=r"m\.csv:2: a quotation mark is not closed"):
        rows_of(tmp_path / "m.csv")


def test_a_table_without_the_column_is_refused(tmp_path: Path) -> None:
    (tmp_path / "m.csv").write_text("file,words\na.wav,x\n")
    with pytest.raises(ManifestError, match=r"no column 'audio_filepath'.*file,words"):
        rows_of(tmp_path / "m.csv")


def test_parquet_keeps_types_and_skips_bytes(tmp_path: Path) -> None:
    table = pa.table(
        {
            "audio_filepath": ["a.wav", "b.wav", None],
            "offset": [None, 0.5, None],
            "duration": pa.array([1, 2, 3], pa.int32()),
            "text": pa.array(["x", "y", "z"]).dictionary_encode(),
            "snr": [float("nan"), 1.5, 2.0],
            "day": [date(2026, 1, 2), None, None],
            "blob": [b"x" * 100, b"", b""],
        }
    )
    pq.write_table(table, tmp_path / "m.parquet")
    first, second, third = rows_of(tmp_path / "m.parquet")
    assert (first["claimed_duration"], first["text"]) == (1.0, "x")
    assert json.loads(first["metadata"]) == {"day": "2026-01-02", "snr": None}
    assert (second["offset"], json.loads(second["metadata"])["snr"]) == (0.5, 1.5)
    assert third["failure"]["kind"] == "missing_path"
    assert third["line"] == "m.parquet:3"


def cut(**keys: Any) -> dict[str, Any]:
    source = {"type": "file", "channels": [0], "source": "x/y.flac"}
    return {
        "id": "c1",
        "type": "MonoCut",
        "start": 1.5,
        "duration": 2.0,
        "channel": 0,
        "recording": {"id": "r1", "sampling_rate": 16000, "sources": [source]},
        "supervisions": [{"start": 1, "text": "no "}, {"start": 0, "text": "yes", "speaker": "s"}],
        **keys,
    }


def test_lhotse_cuts_are_slices(tmp_path: Path) -> None:
    path = lines(
        tmp_path / "cuts.jsonl", cut(), cut(id="c2", start=0), cut(id="c3", type="MultiCut", start=9.0)
    )
    rows = rows_of(path)
    assert [(r["offset"], r["duration"], r["text"]) for r in rows] == [
        (1.5, 2.0, "yes no"),
        (0.0, 2.0, "yes no"),
        (9.0, 2.0, "yes no"),
    ]
    assert rows[0]["audio_filepath"] == f"{tmp_path}/x/y.flac"
    metadata = json.loads(rows[0]["metadata"])
    assert (metadata["id"], metadata["channel"], metadata["recording"]) == ("c1", 0, "r1")
    assert metadata["supervisions"][1]["speaker"] == "s"


@pytest.mark.parametrize(
    "row",
    [
        cut(type="MixedCut", recording=None, tracks=[]),
        cut(recording={"sources": [{"type": "command", "source": "cat /etc/passwd |"}]}),
        cut(recording={"sources": []}),
        cut(recording={"sources": [{"source": "a.wav"}], "transforms": [{"name": "Speed"}]}),
    ],
)
def test_cuts_that_cannot_be_read_are_bad_lines(tmp_path: Path, row: dict[str, Any]) -> None:
    assert kinds(rows_of(lines(tmp_path / "cuts.jsonl", row))) == ["unsupported_cut"]


def test_a_cut_of_one_channel_of_several_is_not_taken_for_all(tmp_path: Path) -> None:
    """Two cuts of a call were one recording, which heard both speakers."""
    recording = {"id": "c", "sources": [{"type": "file", "channels": [0, 1], "source": "c.wav"}]}
    cut = {"type": "MonoCut", "id": "x", "start": 0.0, "duration": 2.0, "recording": recording}
    both = {**cut, "type": "MultiCut", "start": 2.0, "channel": [0, 1]}
    counted = {"id": "d", "sources": [{"type": "file", "channels": 2, "source": "d.wav"}]}
    odd = [cut | {"start": 4.0, "channel": [[0]]}, cut | {"start": 6.0, "recording": counted}]
    rows = rows_of(lines(tmp_path / "cuts.jsonl", cut | {"channel": 1}, both, *odd))
    assert [r["failure"]["kind"] for r in rows[2:]] == ["unsupported_cut"] * 2
    assert rows[0]["failure"]["kind"] == "unsupported_cut"
    assert "channel 1 of 2" in rows[0]["failure"]["message"]
    assert rows[1]["failure"] is None


def test_a_folder_lists_its_audio_in_order(tmp_path: Path) -> None:
    names = ["b.MP3", "a b#%.wav", "deep/er/c.Opus", ".hidden.wav", ".git/d.wav", "notes.txt", "é.webm"]
    for name in names:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"x" * 10)
    rows = rows_of(tmp_path)
    wanted = ["a b#%.wav", "b.MP3", "deep/er/c.Opus", "é.webm"]
    assert [r["audio_filepath"] for r in rows] == [f"{tmp_path}/{n}" for n in wanted]
    assert {r["size_bytes"] for r in rows} == {10}
    assert rows_of(f"file://{tmp_path}") == rows
    assert len(rows_of(tmp_path / "**" / "*.[wO]*")) == 3
    one = rows_of(tmp_path / "é.webm")
    assert one[0]["recording_id"] == rows[3]["recording_id"]


def test_a_name_that_is_not_utf8_is_still_a_recording(tmp_path: Path) -> None:
    Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff.wav")).write_bytes(b"x")
    (row,) = rows_of(tmp_path)
    with storage.fetch(row["audio_filepath"], str(tmp_path), 100) as fetched:
        assert Path(fetched.path).read_bytes() == b"x"


def test_a_folder_says_what_it_skips_and_looks_into_names_without_extension(tmp_path: Path) -> None:
    wave = b"RIFF\x00\x00\x00\x00WAVEfmt \xff"
    files = {"a.wav": wave, "voicemail": wave, "README": b"read me", "notes.TXT": b"x", ".x.wav": b"x"}
    for name, data in files.items():
        (tmp_path / name).write_bytes(data)
    (tmp_path / ".DS_Store").write_bytes(b"x")
    counts = manifest.Counts()
    table = pa.Table.from_batches(list(manifest.read(run_config(tmp_path), counts)))
    names = [p.rpartition("/")[2] for p in table["audio_filepath"].to_pylist()]
    assert names == ["a.wav", "voicemail"]
    assert counts.skipped == {"hidden": 2, ".txt": 1, "without extension": 1}


@pytest.mark.parametrize("name", ["list.txt", "list", "radio.m3u"])
def test_a_list_of_paths_is_a_manifest(tmp_path: Path, name: str) -> None:
    (tmp_path / "voicemail").write_bytes(b"x")
    text = "#EXTM3U\n\na b.mp3\r\nhttps://h/x.flac?y=1\nvoicemail\n a b.mp3\n"
    (tmp_path / name).write_text(text, encoding="utf-8-sig")
    wanted = [f"{tmp_path}/a b.mp3", "https://h/x.flac?y=1", f"{tmp_path}/voicemail"]
    assert [r["audio_filepath"] for r in rows_of(tmp_path / name)] == wanted
    assert [r["audio_filepath"] for r in rows_of(tmp_path / name, manifest={"format": "list"})] == wanted


def test_other_text_is_refused_and_not_taken_for_audio(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("Call Ada about the lamps.\nThen a.mp3\n")
    with pytest.raises(ManifestError, match=r"notes\.txt is a text file.*'Call Ada about the lamps\.'"):
        rows_of(tmp_path / "notes.txt")


def test_a_single_file_is_taken_by_its_content(tmp_path: Path) -> None:
    (tmp_path / "recording.dat").write_bytes(b"RIFF\x00\x00\x00\x00WAVEfmt \xff")
    assert rows_of(tmp_path / "recording.dat")[0]["audio_filepath"] == f"{tmp_path}/recording.dat"


def test_an_empty_folder_says_what_was_looked_for(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match="There are no files") as e:
        rows_of(tmp_path)
    assert "credentials" not in str(e.value)
    assert "bucket" not in str(e.value)
    (tmp_path / "a.pdf").write_bytes(b"%PDF")
    with pytest.raises(ManifestError, match=r"\(1 file\).*mp3"):
        rows_of(tmp_path)
    lines(tmp_path / "calls.jsonl", {"audio_filepath": "a.wav"})
    with pytest.raises(ManifestError, match=r"Did you mean the manifest 'calls\.jsonl'"):
        rows_of(tmp_path)
    assert len(rows_of(tmp_path, manifest={"format": "nemo"})) == 1


@pytest.mark.parametrize("name", ["none.jsonl", "none/", "none*.jsonl", "none"])
def test_an_input_that_is_not_there(tmp_path: Path, name: str) -> None:
    with pytest.raises(ManifestError):
        rows_of(f"{tmp_path}/{name}")


def test_memory_is_refused() -> None:
    with pytest.raises(ConfigError):
        rows_of("memory://x/m.jsonl")


def test_a_manifest_in_a_bucket(s3_environment: S3Server, tmp_path: Path) -> None:
    bucket = s3_environment.make_bucket()
    for i in range(3):
        row = json.dumps({"audio_filepath": f"../audio/{i} #.wav"}).encode()
        storage.put_atomic(f"{bucket}/manifests/m_{i}.jsonl.gz", gzip.compress(row))
        storage.put_atomic(f"{bucket}/audio/{i} #.wav", b"12")
    listed = [f"{bucket}/audio/{i} #.wav" for i in range(3)]
    assert [r["audio_filepath"] for r in rows_of(f"{bucket}/manifests/m_*.jsonl.gz")] == listed
    assert [r["audio_filepath"] for r in rows_of(f"{bucket}/manifests/m_{{0..2}}.jsonl.gz")] == listed
    folder = rows_of(f"{bucket}/audio")
    assert [r["audio_filepath"] for r in folder] == listed
    assert {r["size_bytes"] for r in folder} == {2}
    with pytest.raises(ManifestError):
        rows_of(f"{bucket}/none.jsonl")
    with pytest.raises(ManifestError):
        rows_of("s3://no-such-bucket/none.jsonl")


def test_a_manifest_on_the_web(tmp_path: Path) -> None:
    lines(tmp_path / "lists" / "m 1.jsonl", {"audio_filepath": "../a #1.wav"}, {"audio_filepath": "/b.wav"})
    handler = partial(QuietHandler, directory=str(tmp_path))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        base = f"http://127.0.0.1:{server.server_port}"
        try:
            rows = rows_of(f"{base}/lists/m%201.jsonl")
            with pytest.raises(ManifestError):
                rows_of(f"{base}/none.jsonl")
        finally:
            server.shutdown()
            thread.join()
    assert [r["audio_filepath"] for r in rows] == [f"{base}/a%20%231.wav", f"{base}/b.wav"]
    assert rows[0]["line"] == "m 1.jsonl:1"


class QuietHandler(SimpleHTTPRequestHandler):
    def log_message(self, *args: object) -> None:
        return


def test_wrong_keys_stop_the_run(s3_environment: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    bucket = s3_environment.make_bucket()
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    with pytest.raises(StorageUnavailable, match="credentials"):
        rows_of(f"{bucket}/m.jsonl")


# ------------------------------------------------------------------------------------------ bad lines


@pytest.mark.parametrize(
    ("line", "kind"),
    [
        (b"{bad", "invalid_json"),
        (b"[1]", "invalid_json"),
        (b"[" * 100_000, "invalid_json"),
        (b'{"audio_filepath": "a.wav", "n": 1' + b"0" * 5000 + b"}", "invalid_json"),
        (b'{"audio_filepath": "\xff.wav"}', "not_utf8"),
        (b'{"text": "x"}', "missing_path"),
        (b'{"audio_filepath": " "}', "missing_path"),
        (b'{"audio_filepath": ["a.wav", "b.wav"]}', "missing_path"),
        (b'{"audio_filepath": "a\\u0000.wav"}', "bad_path"),
        (b'{"audio_filepath": "\\ud800.wav"}', "bad_path"),
        (b'{"audio_filepath": "memory://a.wav"}', "bad_path"),
        (b'{"audio_filepath": "http://[::1/a.wav"}', "bad_path"),
        (b'{"audio_filepath": "s4://b/a.wav"}', "bad_path"),
        (b'{"audio_filepath": "a.wav", "offset": -0.5}', "negative_offset"),
        (b'{"audio_filepath": "a.wav", "duration": -1}', "negative_duration"),
        (b'{"audio_filepath": "a.wav", "offset": NaN}', "bad_number"),
        (b'{"audio_filepath": "a.wav", "duration": Infinity}', "bad_number"),
        (b'{"audio_filepath": "a.wav", "duration": 1e300}', "bad_number"),
        (b'{"audio_filepath": "a.wav", "duration": true}', "bad_number"),
        (b'{"audio_filepath": "a.wav", "duration": {}}', "bad_number"),
        (b'{"audio_filepath": "a.wav", "offset": 1, "duration": 0}', "bad_number"),
        (b'{"audio_filepath": "a.wav", "x": "' + b"y" * (1 << 20) + b'"}', "line_too_long"),
    ],
)
def test_bad_lines_are_failed_rows(tmp_path: Path, line: bytes, kind: str) -> None:
    good = {"audio_filepath": "good.wav"}
    rows = rows_of(lines(tmp_path / "m.jsonl", good, line, {"audio_filepath": "last.wav"}))
    assert kinds(rows) == [None, kind, None]
    bad = rows[1]
    assert bad["line"] == "m.jsonl:2"
    assert bad["failure"]["stage"] == "manifest"
    assert bad["failure"]["message"].startswith("m.jsonl:2: ")
    assert not bad["failure"]["transient"]
    assert len(bad["recording_id"]) == 32


def test_a_zero_claim_is_no_claim(tmp_path: Path) -> None:
    (row,) = rows_of(lines(tmp_path / "m.jsonl", {"audio_filepath": "a.wav", "duration": 0}))
    assert row["claimed_duration"] is None


def test_half_characters_in_texts_are_replaced(tmp_path: Path) -> None:
    line = b'{"audio_filepath": "a.wav", "text": "x\\ud800", "tag": "\\udfff"}'
    (row,) = rows_of(lines(tmp_path / "m.jsonl", line))
    assert (row["text"], row["metadata"]) == ("x?", '{"tag":"?"}')


@pytest.mark.parametrize("good", [0, 1, 85, 95])
def test_mostly_bad_manifests_stop_the_run(tmp_path: Path, good: int) -> None:
    bad_lines = 5 if good == 1 else 100 - good
    rows = [{"audio_filepath": f"{i}.wav"} for i in range(good)] + [b"{"] * bad_lines
    path = lines(tmp_path / "m.jsonl", *rows)
    # Of fewer than ten lines one good one is enough.
    if good in (1, 95):
        s = snapshot_of(path, tmp_path / "s")
        assert (s.num_recordings, s.num_bad, s.num_rows) == (good, bad_lines, good + bad_lines)
        return
    with pytest.raises(ManifestError) as e:
        snapshot_of(path, tmp_path / "s")
    assert f"{bad_lines} of 100 lines are bad:\n  m.jsonl:{good + 1}: " in e.value.message
    assert f"m.jsonl:{good + 10}: " in e.value.message
    assert f"and {bad_lines - 10} more" in e.value.message
    assert ("max_bad_share" in e.value.fix) == (good > 0), "raising it does not help where all are bad"
    if good:
        assert snapshot_of(path, tmp_path / "s", manifest={"max_bad_share": 0.2}).num_bad == bad_lines


def test_manifests_that_hold_nothing(tmp_path: Path) -> None:
    (tmp_path / "empty.jsonl").write_bytes(b"")
    (tmp_path / "blank.jsonl").write_bytes(b"\n \n")
    (tmp_path / "header.csv").write_bytes(b"audio_filepath,text\n")
    for name in ("empty.jsonl", "blank.jsonl", "header.csv"):
        with pytest.raises(ManifestError, match="lists no recordings"):
            snapshot_of(tmp_path / name, tmp_path / "s")


def test_damaged_files_stop_the_run(tmp_path: Path) -> None:
    packed = gzip.compress(b'{"audio_filepath": "a.wav"}\n' * 10_000)
    (tmp_path / "cut.jsonl.gz").write_bytes(packed[: len(packed) // 2])
    (tmp_path / "bad.parquet").write_bytes(b"PAR1" + bytes(100))
    (tmp_path / "array.json").write_bytes(b'[{"audio_filepath": "a.wav"}]')
    for name in ("cut.jsonl.gz", "bad.parquet", "array.json"):
        with pytest.raises(ManifestError, match=name):
            snapshot_of(tmp_path / name, tmp_path / "s")


def test_a_gzip_bomb_is_one_bad_line(tmp_path: Path) -> None:
    with gzip.open(tmp_path / "m.jsonl.gz", "wb") as f:
        f.write(b'{"audio_filepath": "a.wav"}\n{"x": "')
        for _ in range(128):
            f.write(bytes(1 << 20))
        f.write(b'"}\n{"audio_filepath": "b.wav"}\n')
    kinds_found, _, peak_mb = measured(
        "batches = manifest.read(config.build({'input': sys.argv[1], 'output': 'o'}))\n"
        "result = [bool(r['failure']) for b in batches for r in b.to_pylist()]\n",
        tmp_path / "m.jsonl.gz",
    )
    assert kinds_found == [False, True, False]
    assert peak_mb < 200


# ------------------------------------------------------------------------------ duplicates and pilots


def test_identical_rows_collapse_and_others_are_bad(tmp_path: Path) -> None:
    path = lines(
        tmp_path / "m.jsonl",
        {"audio_filepath": "a.wav", "text": "x", "n": 1},
        {"n": 1, "audio_filepath": "./b/../a.wav", "text": "x"},
        {"audio_filepath": "a.wav", "text": "y", "n": 1},
        {"audio_filepath": "a.wav", "text": "x", "n": 2},
        {"audio_filepath": "a.wav", "text": "x", "n": 1, "offset": 0},
        {"audio_filepath": "a.wav", "text": "x", "n": 1, "offset": 0.0000001},
        {"audio_filepath": f"file://{tmp_path}/a.wav", "text": "x", "n": 1},
    )
    rows = rows_of(path)
    assert kinds(rows) == [None, "conflicting_duplicate", "conflicting_duplicate", None]
    assert [r["text"] for r in rows] == ["x", None, None, "x"]
    s = snapshot_of(path, tmp_path / "s")
    assert (s.num_rows, s.num_recordings, s.num_bad, s.num_duplicates) == (4, 2, 2, 3)


@given(
    st.lists(st.lists(st.tuples(st.integers(0, 30), st.integers(0, 2)), min_size=1, max_size=20), max_size=40)
)
def test_seen_is_a_dictionary(batches: list[list[tuple[int, int]]]) -> None:
    seen, first = Seen(), dict[int, int]()
    for batch in batches:
        wanted = []
        for id_, content in batch:
            known = first.setdefault(id_, content) if id_ in first else None
            wanted.append(NEW if known is None else IDENTICAL if known == content else CONFLICTING)
            first.setdefault(id_, content)
        # Ids that end in zero bytes must not be taken for shorter ones.
        hexes = [f"{id_:02x}".ljust(32, "0") for id_, _ in batch]
        got = seen.add(id_array(hexes), np.array([c for _, c in batch], dtype=np.uint64))
        assert got.tolist() == wanted


def test_duplicates_are_found_over_many_batches(tmp_path: Path) -> None:
    names = [{"audio_filepath": f"{i % 15_000}.wav"} for i in range(20_000)]
    s = snapshot_of(lines(tmp_path / "m.jsonl", *names), tmp_path / "s")
    assert (s.num_rows, s.num_duplicates) == (15_000, 5_000)


def many(tmp_path: Path, count: int = 2_000) -> Path:
    return lines(
        tmp_path / "many.jsonl",
        *({"audio_filepath": f"s3://bucket/{i}.wav", "duration": 2} for i in range(count)),
    )


def test_a_limit_takes_the_first_good_recordings(tmp_path: Path) -> None:
    path = lines(
        tmp_path / "m.jsonl",
        {"audio_filepath": "a.wav"},
        {"audio_filepath": "a.wav"},
        b"{",
        *({"audio_filepath": f"{i}.wav"} for i in range(20)),
    )
    rows = rows_of(path, limit=3)
    assert [r["line"] for r in rows] == ["m.jsonl:1", "m.jsonl:3", "m.jsonl:4", "m.jsonl:5"]
    assert len(rows_of(many(tmp_path), limit=5_000)) == 2_000


def test_samples_are_nested_shares(tmp_path: Path) -> None:
    path = many(tmp_path)
    all_ids = [r["recording_id"] for r in rows_of(path)]
    shares = {s: [r["recording_id"] for r in rows_of(path, sample=s)] for s in ("1%", "2%", "50.5%", "100%")}
    assert shares["100%"] == all_ids
    assert 0 < len(shares["1%"]) < len(shares["2%"])
    assert set(shares["1%"]) < set(shares["2%"]) < set(shares["50.5%"])
    assert len(shares["50.5%"]) == pytest.approx(1010, abs=100)
    first = rows_of(path, sample="50.5%", limit=10)
    assert [r["recording_id"] for r in first] == shares["50.5%"][:10]


def test_an_empty_sample_says_so(tmp_path: Path) -> None:
    path = lines(tmp_path / "m.jsonl", {"audio_filepath": "a.wav"})
    with pytest.raises(ManifestError, match="sample"):
        snapshot_of(path, tmp_path / "s", sample="0.0001%")


# ------------------------------------------------------------------------------------------ snapshots


def test_a_snapshot_holds_every_row_in_order(tmp_path: Path) -> None:
    path = many(tmp_path, 120_000)
    s = snapshot_of(path, tmp_path / "s")
    parts = sorted(os.listdir(tmp_path / "s"))
    assert parts == ["part-00000.parquet", "part-00001.parquet"]
    tables = [storage.read_table(f"{tmp_path}/s/{p}") for p in parts]
    assert [t.num_rows for t in tables] == [100_000, 20_000]
    table = pa.concat_tables(tables)
    assert table.schema.equals(RECORDINGS)
    assert table["line"].to_pylist() == [f"many.jsonl:{i + 1}" for i in range(120_000)]
    assert (s.num_rows, s.known_seconds, s.num_unknown_duration) == (120_000, 240_000.0, 0)
    assert s.files == [f"file://{path}"]


def test_the_digest_tells_manifests_apart(tmp_path: Path) -> None:
    a, b = {"audio_filepath": "a.wav", "text": "x"}, {"audio_filepath": "b.wav"}

    def digest(*rows: dict[str, Any]) -> str:
        return snapshot_of(lines(tmp_path / "m.jsonl", *rows), tmp_path / "s").digest

    base = digest(a, b)
    assert digest(a, b) == base
    assert digest(a, a, b) == base
    others = [
        digest(b, a),
        digest(a),
        digest(a | {"text": ""}, b),
        digest({"audio_filepath": "a.wav"}, b),
        digest(a, b | {"text": "x"}),
        digest(a | {"duration": 1}, b),
        digest(a | {"offset": 0}, b),
        digest(a | {"tag": 1}, b),
    ]
    assert len({base, *others}) == len(others) + 1


def test_known_seconds_are_summed(tmp_path: Path) -> None:
    path = lines(
        tmp_path / "m.jsonl",
        {"audio_filepath": "a.wav", "duration": 2.5},
        {"audio_filepath": "a.wav", "offset": 1, "duration": 4},
        {"audio_filepath": "b.wav"},
        b"{",
    )
    s = snapshot_of(path, tmp_path / "s")
    assert math.isclose(s.known_seconds, 6.5)
    assert s.num_unknown_duration == 1


@pytest.mark.slow
def test_a_million_rows_in_bounded_memory(tmp_path: Path) -> None:
    with open(tmp_path / "m.jsonl", "w") as f:
        for i in range(1_000_000):
            row = {
                "audio_filepath": f"c/{i % 1000}/{i}.wav",
                "duration": i % 40 + 0.5,
                "text": f"text {i}",
                "n": i,
            }
            f.write(json.dumps(row) + "\n")
    rows, cpu_seconds, peak_mb = measured(
        "s = manifest.snapshot(config.build({'input': sys.argv[1], 'output': 'o'}), sys.argv[2])\n"
        "result = s.num_rows\n",
        tmp_path / "m.jsonl",
        tmp_path / "s",
    )
    print(f"{rows} rows: {cpu_seconds:.0f} s of CPU, {peak_mb:.0f} MB at most")
    assert rows == 1_000_000
    assert cpu_seconds < 300, "30 on an idle machine"
    assert peak_mb < 600
