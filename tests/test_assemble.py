"""Chunks of one recording become its row; samples are accounted for."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pyarrow as pa
import pytest

from dawnchorus.assemble import RunFacts, account, assemble, unreadable
from dawnchorus.schema import TRANSCRIPTS
from tables import RATE, chunk, end, failed_end, failure, recording

A = recording("a", claimed_duration=10.0, text="the reference")
FACTS = RunFacts("fake", "model", "rev", "run", "print")


def row(ending: dict[str, Any], chunks: list[dict[str, Any]], of: dict[str, Any] = A) -> dict[str, Any]:
    made = assemble(of, ending, chunks, FACTS)
    pa.Table.from_pylist([made], schema=TRANSCRIPTS)
    return made


def test_segments_are_joined_in_order_of_time() -> None:
    mine = [chunk(A, 1, 4, 6), chunk(A, 0, 1, 3)]
    made = row(end(A, mine, 10), mine)
    assert (made["status"], made["pred_text"], made["text"]) == ("ok", "word0 word1", "the reference")
    assert made["coverage"] == {"decoded": 10.0, "transcribed": 4.0, "silent": 6.0, "failed": 0.0}
    assert made["duration"] == 10.0
    assert made["flags"] == []


def test_channels_are_merged_on_one_time_line() -> None:
    mine = [chunk(A, 0, 0, 2, channel=0), chunk(A, 0, 1, 3, channel=1), chunk(A, 1, 4, 5, channel=0)]
    made = row(end(A, mine, 10), mine)
    assert [(s["channel"], s["start"]) for s in made["segments"]] == [(0, 0), (1, 1), (0, 4)]


def test_a_failed_chunk_makes_the_row_partial_and_shows_what_can_be_tried_again() -> None:
    final = chunk(
        A, 0, 0, 2, status="failed", segments=[], failure=failure("non_finite", False, stage="transcribe")
    )
    again = chunk(
        A, 1, 3, 4, status="failed", segments=[], failure=failure("memory", True, stage="transcribe")
    )
    good = chunk(A, 2, 5, 6)
    made = row(end(A, [final, again, good], 10), [final, again, good])
    assert (made["status"], made["flags"], made["failure"]["kind"]) == ("ok", ["partial"], "memory")
    assert made["coverage"] == {"decoded": 10.0, "transcribed": 1.0, "silent": 6.0, "failed": 3.0}
    assert row(end(A, [final], 10), [final])["status"] == "failed"


def test_no_speech_is_empty_and_no_audio_is_failed() -> None:
    assert row(end(A, [], 10), [])["status"] == "empty"
    nothing = chunk(A, 0, 0, 2, segments=[], status="empty")
    assert row(end(A, [nothing], 10), [nothing])["status"] == "empty"
    hole = end(A, [], 10)
    hole["channels"][0] |= {"silent_samples": 4 * RATE, "damaged_samples": 6 * RATE}
    made = row(hole, [])
    assert (made["status"], made["failure"]["kind"]) == ("failed", "damaged_audio"), (
        "there was little to hear"
    )
    made = row(failed_end(A, "not_found", False), [])
    assert (made["status"], made["failure"]["kind"], made["coverage"]) == ("failed", "not_found", None)
    bad = recording("x", failure=failure("invalid_json", False, stage="manifest"))
    assert unreadable(bad, FACTS)["failure"]["kind"] == "invalid_json"


@pytest.mark.parametrize(
    ("columns", "container", "flagged"),
    [
        ({"claimed_duration": 10.05}, None, False),
        ({"claimed_duration": 10.2}, None, True),
        ({"claimed_duration": None}, 9.0, True),
        ({"claimed_duration": None}, None, False),
        ({"claimed_duration": None, "offset": 5.0, "duration": 10.0}, 300.0, False),
        ({"claimed_duration": None, "offset": 5.0, "duration": 12.0}, 300.0, True),
    ],
)
def test_a_length_that_is_not_the_claimed_one_is_flagged(
    columns: dict[str, Any], container: float | None, flagged: bool
) -> None:
    of = A | columns
    made = row(end(of, [], 10, container_duration=container), [], of)
    assert ("duration_mismatch" in made["flags"]) is flagged


def test_damaged_samples_count_as_failed_inside_and_outside_chunks() -> None:
    one = chunk(A, 0, 0, 4, damaged_samples=RATE)
    ending = end(A, [one], 10)
    ending["channels"][0] |= {"damaged_samples": 3 * RATE, "silent_samples": 4 * RATE}
    (sums,) = account(ending, [one])
    assert (sums.transcribed, sums.failed, sums.silent) == (3 * RATE, 3 * RATE, 4 * RATE)
    assert sums.balanced


def test_a_dropped_chunk_or_a_shifted_boundary_does_not_balance() -> None:
    mine = [chunk(A, 0, 0, 2), chunk(A, 1, 3, 4)]
    ending = end(A, mine, 10)
    assert account(ending, mine)[0].balanced
    assert not account(ending, mine[:1])[0].balanced
    shifted = [mine[0], mine[1] | {"end": mine[1]["end"] + 1 / RATE}]
    assert not account(ending, shifted)[0].balanced


@pytest.mark.parametrize("logprobs", [(-1.2, -0.9), (-0.1, -0.2)])
def test_a_recording_that_may_not_be_english_is_flagged_for_english_only_models(
    logprobs: tuple[float, float],
) -> None:
    [said] = chunk(A, 0, 0, 1)["segments"]
    said["text"] = "I'm going to go to the next one and thank you very much"
    mine = [
        chunk(
            A,
            i,
            2 * i,
            2 * i + 1,
            avg_logprob=p,
            num_tokens=14,
            segments=[said | {"start": 2.0 * i, "end": 2.0 * i + 1}],
        )
        for i, p in enumerate(logprobs)
    ]
    english = replace(FACTS, english_only=True)
    doubtful = logprobs[0] < -1
    assert assemble(A, end(A, mine, 10), mine, english)["flags"] == ["maybe_not_english"] * doubtful
    assert row(end(A, mine, 10), mine)["flags"] == []
