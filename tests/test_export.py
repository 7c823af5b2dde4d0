"""Exports: cues that obey their limits, frozen SRT and VTT, names that stay inside their folder."""

from __future__ import annotations

import os
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import outputs
from dawnchorus import export, storage
from dawnchorus.errors import ConfigError, UserError
from dawnchorus.export import cues, formats, names
from outputs import failed, segment, transcript
from s3_server import S3Server

LONG = (
    "The wren is the loudest singer for its size, and at four in the morning nobody on this street "
    "doubts it. Then the blackbird joins, slowly, as if it had all day."
)


def word(start: float, end: float, text: str) -> dict[str, object]:
    return {"start": start, "end": end, "word": text, "prob": 0.9}


CALL = transcript(
    "s3://calls/a.flac",
    segment(0.0, 12.5, LONG),
    segment(12.5, 14.0, "Hello & <b>welcome</b> --> here.", channel=0),
    segment(13.0, 14.5, "Yes,\n\nhello.", channel=1),
    segment(3661.5, 3662.0, "Bye.", speaker="Ann <x>"),
)


def test_srt_and_vtt_are_frozen() -> None:
    frozen = Path(__file__).parent / "data" / "frozen"
    assert formats.srt(CALL) == (frozen / "export.srt").read_text(encoding="utf-8")
    assert formats.vtt(CALL) == (frozen / "export.vtt").read_text(encoding="utf-8")


def test_markup_cannot_leave_its_cue() -> None:
    evil = transcript("s3://b/a", segment(0, 3, "a --> b </v><v X>&amp; \n\n00:00:01.000 --> 00:00:09.000"))
    body = formats.vtt(evil).partition("\n\n")[2]
    assert body.count("-->") == 1
    assert "&lt;/v&gt;&lt;v" in body
    assert "&amp;amp;" in body
    assert formats.srt(evil).count("-->") == 1
    assert "<v" not in formats.srt(evil)


def test_words_with_times_set_the_times_of_cues() -> None:
    words = [word(1.0, 1.2, " One"), word(1.2, 1.4, " two."), word(9.5, 9.9, " Three.")]
    found = cues.cues([segment(1.0, 9.9, "One two. Three.", words=words)])
    assert [(c.start_ms, c.end_ms, c.lines) for c in found] == [
        (1000, 1400, ["One two."]),
        (9500, 9900, ["Three."]),
    ]


def test_cues_are_spaced_as_the_text_is() -> None:
    """faster-whisper's words begin with their space; NeMo's have none, nor has the text of some scripts."""
    said = [" www", ".example", ".org", " at", " 28", ".8", " cold", "-hearted"]
    words = [word(n / 2, n / 2 + 0.4, w) for n, w in enumerate(said)]
    [cue] = cues.cues([segment(0.0, 4.0, "".join(said).strip(), words=words)])
    assert cue.lines == ["www.example.org at 28.8 cold-hearted"]
    bare = [word(0.0, 0.4, "to"), word(0.5, 0.9, "be")]
    assert cues.cues([segment(0.0, 0.9, "to be", words=bare)])[0].lines == ["to be"]
    chinese = [word(n / 2, n / 2 + 0.4, w) for n, w in enumerate(["今日", "は", "天気"])]
    assert cues.cues([segment(0.0, 1.4, "今日は天気", words=chinese)])[0].lines == ["今日は天気"]
    long = "Donaudampfschifffahrtsgesellschaft"
    assert cues.cues([segment(0.0, 3.0, f"the {long} is")])[0].lines == [f"the {long} is"]


def test_a_word_of_the_other_voice_leaves_a_sentence_to_be_read() -> None:
    both = [segment(0.0, 3.5, "a long sentence", channel=0), segment(0.5, 0.8, "yes", channel=1)]
    assert [(c.start_ms, c.end_ms) for c in cues.cues(both)] == [(0, 2000), (2000, 3500)]


def test_a_script_without_spaces_is_cut() -> None:
    found = cues.cues([segment(0.0, 20.0, "字" * 150)])
    assert sum(len(line) for c in found for line in c.lines) >= 150
    assert all(len(line) <= cues.LINE_CHARACTERS for c in found for line in c.lines)


spans = st.tuples(st.floats(0, 100), st.floats(0, 40), st.integers(0, 2), st.text(max_size=300))


@settings(max_examples=150, deadline=None)
@given(st.lists(spans, max_size=8), st.booleans())
def test_cues_obey_their_limits(raw: list[tuple[float, float, int, str]], labelled: bool) -> None:
    segments = [segment(a, a + b, t, channel=c or None) for a, b, c, t in raw]
    found = cues.cues(segments, labelled)
    for cue in found:
        assert 1 <= cue.end_ms - cue.start_ms <= cues.MAX_MS
        assert 1 <= len(cue.lines) <= cues.MAX_LINES
        label = len(f"[{cue.speaker}] ") if labelled and cue.speaker else 0
        assert all(
            len(line) + (0 if n else label) <= cues.LINE_CHARACTERS for n, line in enumerate(cue.lines)
        )
    assert all(a.end_ms <= b.start_ms for a, b in pairwise(found))
    said = "".join("".join(c.lines) for c in sorted(found, key=lambda c: c.speaker or ""))
    assert sorted(said.replace(" ", "")) == sorted("".join(cues.clean(t) for *_, t in raw).replace(" ", ""))


def test_txt_makes_paragraphs() -> None:
    row = transcript(
        "s3://b/a",
        segment(0.0, 1.0, "One."),
        segment(1.5, 2.0, "Two."),
        segment(5.0, 6.0, "Three."),
        segment(6.0, 7.0, "Four.", channel=1),
    )
    assert formats.txt(row) == "One. Two.\n\nThree.\n\nChannel 1: Four.\n"


def archive(folder: Path) -> str:
    rows = [
        transcript("s3://b/x/day 1/a.flac", segment(0, 1, "one")),
        transcript("s3://b/x/day 1/a.mp3", segment(0, 1, "two")),
        transcript("s3://b/x/tape.wav", segment(0, 1, "three"), offset=1.5, duration=2.0),
        transcript("s3://b/x/tape.wav", segment(0, 1, "four"), offset=3.5, duration=2.0),
        transcript("s3://b/x/silence.wav", duration=4.0),
    ]
    outputs.write(folder, "transcripts", rows, "part-a")
    more = [
        failed("s3://b/x/bad.wav", "not_audio", "This is no audio."),
        failed("", "bad_json", "m:3: no JSON"),
    ]
    outputs.write(folder, "transcripts", more, "part-b")
    return str(folder)


def tree(folder: Path) -> list[str]:
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file())


def test_one_file_per_recording_named_as_its_audio(tmp_path: Path) -> None:
    done = export.export(archive(tmp_path / "out"), str(tmp_path / "srt"), "srt")
    first, second = tree(tmp_path / "srt")[:2]
    assert tree(tmp_path / "srt")[2:] == ["tape_1.500-3.500.srt", "tape_3.500-5.500.srt"]
    assert {first[:8], second[:8]} == {"day 1/a."}
    assert len(first) == len("day 1/a.123456789012.srt")
    assert (done.num_files, done.num_written, done.num_left_out) == (4, 4, {"empty": 1, "failed": 2})
    assert "Left out: 1 without speech, 2 failed." in done.sentence()
    again = export.export(str(tmp_path / "out"), str(tmp_path / "srt"), "srt")
    assert (again.num_files, len(tree(tmp_path / "srt"))) == (4, 4)


def test_jsonl_holds_every_row(tmp_path: Path) -> None:
    done = export.export(archive(tmp_path / "out"), str(tmp_path / "all.jsonl"), "jsonl")
    found = outputs.lines(tmp_path / "all.jsonl")
    assert [r["status"] for r in found] == ["ok"] * 4 + ["empty"] + ["failed"] * 2
    assert found[5]["failure"]["kind"] == "not_audio"
    assert done.num_written == 7


def answer(name: str, text: str | None, **more: object) -> dict[str, object]:
    """A value of `schema.ANSWER`."""
    facts = {"question": None, "json": None, "finish_reason": "stop", "flags": [], "status": "ok"}
    return {"name": name, "text": text, "failure": None, "fingerprint": "a" * 16, **facts, **more}


def interview(folder: Path) -> str:
    """Four transcripts: asked twice, asked once and cut, not asked, and one whose answer failed."""
    topics = answer("topics", '{"topics": ["birds"]}', json='{"topics": ["birds"]}')
    why = {"stage": "answer", "kind": "timeout", "message": "It took too long.", "transient": True}
    lost = answer("summary", None, status="failed", finish_reason="error", failure={**why, "attempts": 3})
    cut = answer("summary", "It goes", finish_reason="length", flags=["partial"])
    said = {
        "a.flac": [answer("summary", " Birds sing.\n\nLoudly. \n"), topics],
        "b.flac": [cut],
        "c.flac": [],
        "d.flac": [lost],
    }
    rows = [transcript(f"s3://b/x/{n}", segment(0, 1, n), answers=a) for n, a in said.items()]
    rows.append(transcript("s3://b/x/e.flac", duration=3.0))
    outputs.write(folder, "transcripts", rows)
    return str(folder)


def test_jsonl_holds_answers_by_name(tmp_path: Path) -> None:
    export.export(interview(tmp_path / "out"), str(tmp_path / "all.jsonl"), "jsonl")
    first, second, third, fourth, _ = (r["answers"] for r in outputs.lines(tmp_path / "all.jsonl"))
    assert list(first) == ["summary", "topics"]
    assert first["topics"]["json"] == {"topics": ["birds"]}
    assert first["summary"]["json"] is None
    assert second["summary"]["finish_reason"] == "length"
    assert second["summary"]["flags"] == ["partial"]
    assert third == {}
    assert fourth["summary"]["failure"]["kind"] == "timeout"


def test_answers_are_texts_beside_the_transcripts(tmp_path: Path) -> None:
    source = interview(tmp_path / "out")
    for name in (None, "summary", "topics"):
        done = export.export(source, str(tmp_path / "txt"), "txt", name)
        if name == "summary":
            assert (done.num_files, done.num_left_out) == (2, {"empty": 1, "unanswered": 2})
            assert done.sentence().startswith("2 answers (summary) as txt in 2 files: ")
            assert done.sentence().endswith("Left out: 1 without speech, 2 without this answer.")
            assert not done.grew
    assert tree(tmp_path / "txt") == [
        *("a.summary.txt", "a.topics.txt", "a.txt", "b.summary.txt", "b.txt", "c.txt", "d.txt"),
    ]
    assert (tmp_path / "txt" / "a.summary.txt").read_text() == "Birds sing.\n\nLoudly.\n"
    assert (tmp_path / "txt" / "a.topics.txt").read_text() == '{"topics": ["birds"]}\n'
    with pytest.raises(UserError, match="There is: summary, topics"):
        export.export(source, str(tmp_path / "txt"), "txt", "minutes")
    with pytest.raises(ConfigError, match="--format txt --answer summary"):
        export.export(source, str(tmp_path / "x"), "srt", "summary")
    with pytest.raises(UserError, match="dawnchorus ask"):
        export.export(archive(tmp_path / "silent"), str(tmp_path / "txt"), "txt", "summary")


def test_nemo_lines_have_reference_and_prediction(tmp_path: Path) -> None:
    path = f"{tmp_path}/ä b.wav"
    rows = [
        transcript(
            storage.absolute(path),
            segment(0, 2, "said"),
            text="meant",
            metadata='{"speaker": "ann", "pred_text": "not me"}',
        ),
        transcript("s3://b/t.wav", segment(0, 2, "x"), offset=0.0, duration=2.0),
        failed("s3://b/bad.wav", "crash", "no"),
    ]
    outputs.write(tmp_path / "out", "transcripts", rows)
    export.export(str(tmp_path / "out"), str(tmp_path / "m.json"), "nemo")
    first, second = outputs.lines(tmp_path / "m.json")
    assert first == {
        "audio_filepath": path,
        "duration": 2.0,
        "text": "meant",
        "pred_text": "said",
        "speaker": "ann",
    }
    assert second == {"audio_filepath": "s3://b/t.wav", "offset": 0.0, "duration": 2.0, "pred_text": "x"}


EVIL = [
    "s3://b/../../../etc/passwd",
    "s3://b/x/..",
    "s3://b/x/.",
    "s3://b/x/.bashrc",
    "s3://b/x//",
    "s3://b/x/a\\..\\..\\b.wav",
    "s3://b/x/con.wav",
    "s3://b/x/c:d.wav",
    "s3://b/x/" + "ü" * 400 + ".wav",
    "s3://b/" + "d/" * 500 + "a.wav",
    "s3://b/x/new\nline\x1b[31m.wav",
    "s3://b/x/A.wav",
    "s3://b/x/a.wav",
    "s3://b/x/a.srt/b.wav",
    "file:///%FF%FE.wav",
    "file:///etc/%2E%2E/shadow",
    "https://h/x/%2e%2e/%2e%2e/p.wav",
]


def test_no_name_leaves_the_folder_or_meets_another(tmp_path: Path) -> None:
    inside = tmp_path / "in" / "here"
    rows = [transcript(a, segment(0, 1, a[:20])) for a in EVIL]
    outputs.write(tmp_path / "out", "transcripts", rows)
    done = export.export(str(tmp_path / "out"), str(inside), "srt")
    everything = [p for p in tree(tmp_path) if not p.startswith("out/")]
    assert len(everything) == done.num_files == len(EVIL)
    assert all(p.startswith("in/here/") and p.endswith(".srt") for p in everything)
    assert not any(part.startswith(".") for p in everything for part in p.split("/"))
    assert all(c.isprintable() for p in everything for c in p)
    assert len({p.casefold() for p in everything}) == len(EVIL)


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=300))
def test_safe_component(name: str) -> None:
    made = names.safe(name)
    assert 0 < len(made.encode()) <= 170
    assert os.path.basename(made) == made
    assert made not in (".", "..")
    assert made == names.safe(made)


def test_names_do_not_depend_on_the_order_of_rows() -> None:
    items = [
        (f"{n:032x}", a, None, None) for n, a in enumerate(["s3://b/a.wav", "s3://b/a.mp3", "s3://b/c.wav"])
    ]
    forward = names.Namer(items, ["s3:b"], ".srt")
    backward = names.Namer(items[::-1], ["s3:b"], ".srt")
    assert [forward.name(i) for i in items] == [backward.name(i) for i in items]
    assert forward.name(items[2]) == "c.srt"


def test_a_bucket_is_a_destination(s3_environment: S3Server, tmp_path: Path) -> None:
    bucket = s3_environment.make_bucket()
    source = archive(tmp_path / "out")
    export.export(source, f"{bucket}/vtt", "vtt")
    export.export(source, f"{bucket}/all.jsonl", "jsonl")
    found = [f.url for f in storage.list_files(bucket)]
    assert f"{bucket}/vtt/tape_1.500-3.500.vtt" in found
    assert len(found) == 5
    assert len(storage.read_bytes(f"{bucket}/all.jsonl").splitlines()) == 7


def test_what_cannot_be_exported_is_said(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="srt, vtt, txt"):
        export.export(archive(tmp_path / "out"), str(tmp_path / "x"), "docx")
    with pytest.raises(UserError, match=r"talk\.SRT looks like a file.*give a folder, for example .*/talk/"):
        export.export(str(tmp_path / "out"), str(tmp_path / "talk.SRT"), "srt")
    assert export.export(str(tmp_path / "out"), f"{tmp_path}/2024.srt/", "srt").num_files
    with pytest.raises(UserError, match="does not exist"):
        export.export(str(tmp_path / "nowhere"), str(tmp_path / "x"), "srt")
    outputs.write(tmp_path / "running", "chunks", [])
    with pytest.raises(UserError, match="dawnchorus assemble"):
        export.export(str(tmp_path / "running"), str(tmp_path / "x"), "srt")


def test_rows_come_in_home_file_order(tmp_path: Path) -> None:
    output = archive(tmp_path / "out")
    texts = [t for b in export.rows(output, ["pred_text"], batch_rows=2) for t in b["pred_text"].to_pylist()]
    assert texts == ["one", "two", "three", "four", "", "", ""]
