"""The report's lower half: failures, accuracy, times, books, model, commands, configuration. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sized
from typing import Any

import yaml

from dawnchorus.report import charts, words
from dawnchorus.report.markup import code, escape, moment, number, say, table, where
from dawnchorus.report.words import cut, length
from dawnchorus.wording import every, many

_MAX_KINDS = 50
_MAX_WORKERS = 24
_MAX_ATTEMPTS = 40
_MAX_CONFIG_CHARACTERS = 20_000

Report = Mapping[str, Any]


def failures(report: Report) -> str:
    """Kinds of failures with examples and a hint each, and the list one by one."""
    if not report["failures"]["num"]:
        return ""
    kinds = "".join(_kind(k) for k in report["failures"]["kinds"][:_MAX_KINDS])
    return f"<section><h2>What failed, and what to do</h2>{kinds}{_one_by_one(report)}</section>\n"


def _kind(kind: Mapping[str, Any]) -> str:
    rows = [[where(e), say(e["message"])] for e in kind["examples"]]
    more = kind["num"] - len(rows)
    rest = f'<p class="more">and {more:,} more</p>' if more > 0 else ""
    lasting = "may pass" if kind["transient"] else "final"
    if kind["partial"]:
        lasting += ", transcribed in part"
    return (
        f'<article class="kind{" partly" if kind["partial"] else ""}"><h3><b>{kind["num"]:,}</b> '
        f"{code(kind['kind'])} <small>{escape(kind['stage'])}, {lasting}</small></h3>"
        f"<p>{escape(kind['hint'])}</p>{table((), rows)}{rest}</article>"
    )


def _one_by_one(report: Report) -> str:
    num, listed = report["failures"]["num"], report["failures"]["rows"]
    rows = [[where(r), code(r["kind"]), say(r["message"]), f"{r['attempts']}"] for r in listed]
    shown = every(num, "failure") if num == len(rows) else f"The first {len(rows):,} failures"
    beyond = (
        f"<p>The other {num - len(rows):,} with any SQL that reads Parquet, such as DuckDB: "
        f"{code(report['commands']['query_failed'])}</p>"
    )
    return (
        f"<details><summary>{shown} one by one</summary>"
        f"{table(('audio', 'kind', 'reason', 'tries'), rows)}</details>{beyond if num > len(rows) else ''}"
    )


def accuracy(report: Report) -> str:
    """Word error rate where there are references; why there is none where scoring is not installed."""
    wer = report["wer"]
    if wer["wer"] is None:
        note = f"<section><h2>Word error rate</h2><p>{escape(wer['note'])}</p></section>\n"
        return note if wer["note"] else ""
    said = (
        f"{wer['wer']:.2%} over {many(wer['num_words'], 'reference word')} in "
        f"{many(wer['num_recordings'], 'recording')}: {wer['substitutions']:,} substituted, "
        f"{wer['deletions']:,} left out, {wer['insertions']:,} added. {wer['note']}"
    )
    said += "" if words.enough(wer) else f" Below {words.FEWEST_WORDS} reference words it says little."
    rows = [[where(r), f"{r['wer']:.1%}", say(r["text"]), say(r["pred_text"])] for r in wer["worst"]]
    listed = table(("audio", "WER", "reference", "transcript"), rows)
    worst = f"<details><summary>The recordings with most errors</summary>{listed}</details>" if rows else ""
    return f"<section><h2>Word error rate</h2><p>{escape(said)}</p>{worst}</section>\n"


def recordings(report: Report) -> str:
    """The longest recordings, and those that took the engine longest."""
    longest = [[where(r), length(r["duration"]), escape(r["status"])] for r in report["longest"]]
    slowest = [[where(r), length(r["engine_seconds"]), number(r["rtfx"])] for r in report["slowest"]]
    halves = [
        f"<div><h2>{title}</h2>{table(head, rows)}</div>"
        for title, head, rows in (
            ("Longest recordings", ("audio", "length", "status"), longest),
            ("Most engine time", ("audio", "engine", "rtfx"), slowest),
        )
        if rows
    ]
    return f'<section class="two">{"".join(halves)}</section>\n' if halves else ""


def time(report: Report) -> str:
    """Hours, attempts, and what the engines did with their time."""
    cost, spent = report["cost"], report["time"]
    hours = [(cost["engine_hours"], "engine"), (cost["gpu_hours"], "GPU"), (cost["cpu_hours"], "CPU")]
    paid = ", ".join(f"{num:,.2f} {of} hours" for num, of in hours if num)
    said = (
        f"{paid or 'No engine time'}. Engines waited {spent['idle_share']:.0%} of their time. Decoding took "
        f"{spent['decode_share']:.0%} of what decoding and transcribing took together. "
        f"{escape(' '.join(cost['said']))}"
    )
    busy: list[charts.Part] = [
        ("transcribing", spent["engine_seconds"], "ok"),
        ("waiting for audio", spent["wait_seconds"], "silent"),
        ("decoding (CPU)", spent["decode_seconds"], "part"),
    ]
    return (
        f"<section><h2>Time and cost</h2><p>{said}</p>{charts.stacked('Where the time went', busy, length)}"
        f'<div class="two below"><div><h3>Attempts</h3>{_attempts(report)}</div>'
        f"<div><h3>Engines</h3>{_engines(report)}</div></div></section>\n"
    )


def _attempts(report: Report) -> str:
    rows = [
        [
            f"{t['attempt']}",
            moment(t["started_at"]),
            length(t["wall_seconds"]),
            length(t["audio_seconds"]),
            number(t["rtfx"]),
        ]
        for t in report["attempts"][-_MAX_ATTEMPTS:]
    ]
    return table(("no.", "began", "worked", "audio", "rtfx"), rows) + _more(report["attempts"], rows)


def _engines(report: Report) -> str:
    rows = [
        [say(w["worker"]), length(w["engine_seconds"]), f"{w['idle_share']:.0%}", f"{w['num_chunks']:,}"]
        for w in report["workers"][:_MAX_WORKERS]
    ]
    return table(("process", "busy", "idle", "chunks"), rows) + _more(report["workers"], rows)


def _more(everything: Sized, shown: Sized) -> str:
    left = len(everything) - len(shown)
    return f'<p class="more">and {left:,} more in {code("report.json")}</p>' if left > 0 else ""


def books(report: Report) -> str:
    """Whether manifest and tables agree."""
    found = report["reconciliation"]
    if not found["num_problems"]:
        said = (
            "<p>They do: what is published has one row per recording, and on every channel the transcribed, "
            "failed and silent samples add up to those decoded.</p>"
        )
    else:
        items = "".join(f"<li>{escape(cut(p, 400))}</li>" for p in found["problems"])
        more = found["num_problems"] - len(found["problems"])
        said = f"<ul>{items}</ul>{f'<p>and {more:,} more</p>' if more else ''}"
    return f"<section><h2>Do the books balance?</h2>{said}</section>\n"


def model(report: Report) -> str:
    """Which model, its licence and the attribution it asks for."""
    facts = report["model"]
    rows = [
        ("model", f"{escape(facts['model'])} <small>{escape(facts['revision'])}</small>"),
        ("engine", escape(facts["engine"])),
        ("licence", escape(facts["licence"])),
        ("attribution", escape(facts["attribution"])),
        *([("languages", escape(facts["languages"]))] if facts.get("languages") else []),
        ("fingerprint", code(report["fingerprint"])),
    ]
    made = "".join(f"<dt>{name}</dt><dd>{value}</dd>" for name, value in rows)
    return f'<section><h2>Model</h2><dl class="facts">{made}</dl></section>\n'


def commands(report: Report) -> str:
    """What to type next."""
    known = report["commands"]
    wanted = [("Go on, or run again", "resume"), ("Export subtitles", "export")]
    if report["failures"]["num"]:
        wanted += [("List what failed", "show_failed"), ("Try final failures again", "retry_failed")]
    made = "".join(f"<dt>{escape(name)}</dt><dd><pre>{escape(known[key])}</pre></dd>" for name, key in wanted)
    return f'<section><h2>What next</h2><dl class="commands">{made}</dl></section>\n'


def config(report: Report) -> str:
    """The whole configuration, folded away."""
    text = cut(yaml.safe_dump(report["config"], sort_keys=False, allow_unicode=True), _MAX_CONFIG_CHARACTERS)
    return (
        f"<section><details><summary>Configuration</summary><pre>{escape(text)}</pre></details></section>\n"
    )
