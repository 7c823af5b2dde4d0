"""The report as one HTML page: opens offline, prints, follows the system's light or dark. Pure.

First the answer in a sentence, then numbers, then pictures, then the details. Everything that comes from
data is escaped, and cut, so that the page stays below 2 MB whatever the run was.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from importlib import resources

from dawnchorus.report import answers, charts, details, quotes, words
from dawnchorus.report.details import Report
from dawnchorus.report.markup import code, escape, moment, number
from dawnchorus.report.words import length
from dawnchorus.wording import many

_POLICY = "default-src 'none'; style-src 'unsafe-inline'"


def render(report: Report) -> str:
    """The whole page."""
    title = f"{report['headline']} Run {report['run_id']}"
    sections = (
        _numbers,
        _pictures,
        details.failures,
        quotes.transcripts,
        quotes.flags,
        details.accuracy,
        answers.section,
        details.recordings,
        details.time,
        details.books,
        details.model,
        details.commands,
        details.config,
    )
    body = "".join(section(report) for section in sections)
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<meta name="color-scheme" content="light dark"><meta name="referrer" content="no-referrer">'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">'
        f"<title>{escape(title)}</title><style>{_style()}</style></head><body>\n"
        f"{_header(report)}<main>{body}</main>{_footer(report)}</body></html>\n"
    )


@functools.cache
def _style() -> str:
    return resources.files("dawnchorus.report").joinpath("page.css").read_text(encoding="utf-8")


def _header(report: Report) -> str:
    verdict = "bad" if report["reconciliation"]["num_problems"] else "good"
    if verdict == "good" and (report["totals"]["missing"] or report["totals"]["failed"]):
        verdict = "fair"
    return (
        f'<header class="{verdict}"><p class="mark"><span>Dawn Chorus</span> '
        f"<span>{moment(report['made_at'])}</span></p>"
        f'<h1>{escape(report["headline"])}</h1><p class="lede">{escape(words.lede(report))}</p></header>\n'
    )


def _footer(report: Report) -> str:
    return (
        f"<footer>Run {code(report['run_id'])} in {code(report['output'])}, reported by "
        f"Dawn Chorus {escape(report['model']['version'])}. All figures: {code('report.json')}.</footer>"
    )


def _numbers(report: Report) -> str:
    totals, spent, wer = report["totals"], report["time"], report["wer"]
    audio = report["coverage"]["audio"]
    tiles = [
        ("recordings", f"{totals['recordings']:,}", _collapsed(totals)),
        ("of audio", length(audio), f"{_silent(report):.0%} silent"),
        ("of work", length(spent["wall_seconds"]), many(len(report["attempts"]), "attempt")),
        ("rtfx", number(spent["rtfx"]), f"an engine at work: {_plain(spent['engine_rtfx'])}"),
        ("words", words.short(totals["words"]), many(spent["num_chunks"], "chunk")),
        (
            "failed",
            f"{totals['failed']:,}",
            f"{totals['partial']:,} more in part" if totals["partial"] else "",
        ),
    ]
    if words.enough(wer):
        tiles.append(("word error rate", f"{wer['wer']:.1%}", f"{wer['num_recordings']:,} with reference"))
    made = "".join(
        f"<div><dt>{escape(name)}</dt><dd>{value}<small>{escape(more)}</small></dd></div>"
        for name, value, more in tiles
    )
    return f'<dl class="tiles">{made}</dl>\n'


def _silent(report: Report) -> float:
    """Share of what was decoded: channels that are transcribed apart count one by one."""
    coverage = report["coverage"]
    return float(coverage.get("silent", 0.0) / coverage["decoded"]) if coverage.get("decoded") else 0.0


def _plain(value: float | None) -> str:
    return "none" if value is None else f"{value:,.1f}"


def _collapsed(totals: Mapping[str, int]) -> str:
    said = []
    if totals["duplicates"]:
        said.append(f"{many(totals['duplicates'], 'duplicate')} collapsed")
    if totals["bad_lines"]:
        said.append(many(totals["bad_lines"], "unreadable line"))
    if totals.get("forgotten"):
        said.append(f"{totals['forgotten']:,} forgotten")
    return ", ".join(said) or f"{totals['ok']:,} with speech"


def _channels(coverage: Mapping[str, float]) -> str:
    """What makes the parts more than the audio: several channels, each with seconds of its own."""
    return ", channel by channel" if coverage.get("decoded", 0.0) > 1.01 * coverage["audio"] else ""


def _pictures(report: Report) -> str:
    totals, coverage = report["totals"], report["coverage"]
    states: list[charts.Part] = [
        ("ok", totals["ok"] - totals["partial"], "ok"),
        ("ok in part", totals["partial"], "part"),
        ("empty", totals["empty"], "silent"),
        ("failed", totals["failed"], "failed"),
        ("missing", totals["missing"], "missing"),
    ]
    seconds: list[charts.Part] = [
        ("transcribed", coverage.get("transcribed", 0.0), "ok"),
        ("silent", coverage.get("silent", 0.0), "silent"),
        ("failed", coverage.get("failed", 0.0), "failed"),
    ]
    figures = [
        charts.stacked("Recordings", states, lambda n: f"{n:,.0f}"),
        charts.stacked(f"Where the audio went{_channels(coverage)}", seconds, length),
        charts.over_time("rtfx over time", report["rtfx_over_time"]),
        charts.histogram("Length of chunks", report["chunk_seconds"], "s", "chunks"),
        charts.histogram("Pace of speech", report["words_per_minute"], "words/min", "recordings"),
    ]
    return f'<section class="pictures">{"".join(figures)}</section>\n'
