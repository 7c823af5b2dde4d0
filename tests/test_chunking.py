from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from dawnchorus.chunking import (
    FRAME_SAMPLES,
    Chunker,
    ChunkParams,
    ChunkStream,
    chunk_params,
    join_at_seam,
    join_seams,
    owned,
)
from dawnchorus.config import ChunkingConfig, VadConfig
from dawnchorus.errors import ConfigError
from dawnchorus.records import Chunk, Segment, Word

RATE = 16_000
FRAME = FRAME_SAMPLES / RATE


def params(
    vad: dict[str, float | bool] | None = None, longest: float = 10.0, **chunking: float
) -> ChunkParams:
    defaults = {"overlap_seconds": 1.0} | chunking
    return chunk_params(VadConfig(**(vad or {})), ChunkingConfig(**defaults), RATE, longest)  # type: ignore[arg-type]


def probabilities(*stretches: tuple[float, float]) -> NDArray[np.float32]:
    """Stretches of (probability, seconds)."""
    return np.concatenate([np.full(round(s / FRAME), p, np.float32) for p, s in stretches])


def chunks_of(
    p: ChunkParams, heard: NDArray[np.float32], num_samples: int | None = None, cuts: tuple[int, ...] = ()
) -> list[Chunk]:
    total = len(heard) * FRAME_SAMPLES if num_samples is None else num_samples
    chunker = Chunker(p, None)
    found = []
    edges = [0, *sorted(cuts), len(heard)]
    for a, b in pairwise(edges):
        found += chunker.push(heard[a:b], min(b * FRAME_SAMPLES, total))
        if found:
            assert chunker.horizon >= 0
    return found + chunker.finish(total)


def seconds(chunks: list[Chunk]) -> list[tuple[float, float]]:
    return [(round(c.start / RATE, 2), round(c.end / RATE, 2)) for c in chunks]


def test_cuts_at_pauses_and_skips_silence() -> None:
    p = params({"pad_seconds": 0.16, "min_pause_seconds": 0.3}, merge_seconds=0)
    heard = probabilities((0, 0.96), (1, 1.6), (0, 0.64), (1, 3.2), (0, 5.12))
    assert seconds(chunks_of(p, heard)) == [(0.8, 2.72), (3.04, 6.56)]


def test_short_pauses_do_not_cut_and_bursts_are_not_speech() -> None:
    p = params({"pad_seconds": 0.0, "min_pause_seconds": 0.3, "min_speech_seconds": 0.1}, merge_seconds=0)
    heard = probabilities((1, 1.6), (0, 0.16), (1, 1.6), (0, 2.56), (1, 0.064), (0, 2.56))
    assert seconds(chunks_of(p, heard)) == [(0.0, 3.36)]


def test_padding_never_overlaps() -> None:
    p = params({"pad_seconds": 1.0, "min_pause_seconds": 0.3}, merge_seconds=0)
    heard = probabilities((1, 1.6), (0, 0.64), (1, 1.6))
    assert seconds(chunks_of(p, heard)) == [(0.0, 1.92), (1.92, 3.84)]


def test_merges_over_short_pauses_up_to_a_length() -> None:
    p = params({"pad_seconds": 0.0, "min_pause_seconds": 0.3}, merge_gap_seconds=0.7, merge_seconds=5)
    heard = probabilities((1, 1.6), (0, 0.64), (1, 1.6), (0, 0.64), (1, 1.6), (0, 0.8), (1, 1.6), (0, 1.6))
    assert seconds(chunks_of(p, heard)) == [(0.0, 3.84), (4.48, 6.08), (6.88, 8.48)]


def test_long_speech_is_cut_at_its_longest_pause_within_reach() -> None:
    p = params({"pad_seconds": 0.0, "min_pause_seconds": 0.5}, merge_seconds=0)
    heard = probabilities((1, 4), (0, 0.128), (1, 2), (0, 0.256), (1, 2), (0, 0.128), (1, 6), (0, 3))
    chunks = chunks_of(p, heard)
    assert seconds(chunks)[0] == (0.0, 6.11)
    assert all(c.input_start == c.start and c.input_end == c.end for c in chunks)


def test_speech_without_any_pause_is_cut_where_it_is_least_likely_with_overlap() -> None:
    p = params({"pad_seconds": 0.0}, longest=10.0, overlap_seconds=1.0)
    heard = probabilities((0.9, 8), (0.6, 0.032), (0.9, 6))
    first, second = chunks_of(p, heard)
    assert first.end == second.start == 251 * FRAME_SAMPLES
    assert first.input_end - first.end == RATE
    assert second.start - second.input_start == RATE
    assert max(c.input_end - c.input_start for c in (first, second)) <= 10 * RATE


def test_without_vad_windows_cover_everything() -> None:
    p = params({"enabled": False}, longest=10.0, overlap_seconds=1.0)
    total = 35 * RATE + 77
    chunks = chunks_of(p, np.zeros(0, np.float32), total)
    assert chunks[0].start == 0
    assert chunks[-1].end == chunks[-1].input_end == total
    assert all(a.end == b.start for a, b in pairwise(chunks))
    assert all(9 * RATE < c.input_end - c.input_start <= 10 * RATE for c in chunks[:-1])
    assert [c.chunk_index for c in chunks] == list(range(len(chunks)))


@pytest.mark.parametrize("total", [1, 511, 512, 16_000])
def test_without_vad_short_recordings_are_one_window(total: int) -> None:
    [chunk] = chunks_of(params({"enabled": False}), np.zeros(0, np.float32), total)
    assert (chunk.start, chunk.end) == (0, total)


def test_nothing_gives_nothing() -> None:
    for enabled in (True, False):
        assert chunks_of(params({"enabled": enabled}), np.zeros(0, np.float32), 0) == []


LEVELS = st.sampled_from([0.0, 0.1, 0.4, 0.55, 0.8, 1.0])
STRETCHES = st.lists(st.tuples(LEVELS, st.integers(1, 400)), min_size=1, max_size=12)
PARAMS = st.builds(
    lambda pad, pause, gap, merge, overlap, vad: params(
        {"pad_seconds": pad, "min_pause_seconds": pause, "enabled": vad},
        merge_gap_seconds=gap,
        merge_seconds=merge,
        overlap_seconds=overlap,
    ),
    st.sampled_from([0.0, 0.1, 0.4]),
    st.sampled_from([0.0, 0.1, 0.3, 1.0]),
    st.sampled_from([0.0, 0.5, 2.0]),
    st.sampled_from([0.0, 4.0, 30.0]),
    st.sampled_from([0.0, 0.5, 2.0]),
    st.booleans(),
)


@settings(max_examples=150, deadline=None)
@given(PARAMS, STRETCHES, st.lists(st.integers(0, 4800), max_size=5), st.integers(0, FRAME_SAMPLES - 1))
def test_any_stream_however_cut(
    p: ChunkParams, stretches: list[tuple[float, int]], cuts: list[int], missing: int
) -> None:
    heard = np.concatenate([np.full(n, v, np.float32) for v, n in stretches])
    total = len(heard) * FRAME_SAMPLES - missing
    whole = chunks_of(p, heard, total)
    assert whole == chunks_of(p, heard, total, tuple(min(c, len(heard)) for c in cuts))
    assert [c.chunk_index for c in whole] == list(range(len(whole)))
    for c in whole:
        assert 0 <= c.input_start <= c.start < c.end <= c.input_end <= total
        assert c.input_end - c.input_start <= p.max_samples
    assert all(a.end <= b.start for a, b in pairwise(whole))
    if not p.vad:
        assert sum(c.end - c.start for c in whole) == total


@settings(max_examples=100, deadline=None)
@given(PARAMS, STRETCHES)
def test_long_speech_is_never_lost(p: ChunkParams, stretches: list[tuple[float, int]]) -> None:
    heard = np.concatenate([np.full(n, v, np.float32) for v, n in stretches])
    covered = np.zeros(len(heard) * FRAME_SAMPLES, bool)
    for c in chunks_of(p, heard):
        covered[c.start : c.end] = True
    frames = covered.reshape(-1, FRAME_SAMPLES).all(axis=1)
    position = 0
    for value, n in stretches:
        if value >= 0.5 and n > p.min_speech_frames:
            assert frames[position : position + n].all()
        position += n


def test_params_say_when_there_is_no_room() -> None:
    with pytest.raises(ConfigError, match="too short for an overlap"):
        params(longest=5.0, overlap_seconds=2.0)
    assert params(longest=40.0, max_seconds=12.0).max_samples == 12 * RATE
    assert params(longest=10.0, max_seconds=12.0).max_samples == 10 * RATE


class EnergyStream:
    """A detector double in the true sense: loud frames are speech. Buffers as the real one does."""

    def __init__(self) -> None:
        self._rest = np.zeros(0, np.int16)

    def push(self, samples: NDArray[np.int16]) -> NDArray[np.float32]:
        self._rest = np.concatenate([self._rest, samples])
        frames = len(self._rest) // (64 * FRAME_SAMPLES) * 64
        ready, self._rest = np.split(self._rest, [frames * FRAME_SAMPLES])
        return self._hear(ready)

    def finish(self) -> NDArray[np.float32]:
        missing = -len(self._rest) % FRAME_SAMPLES
        return self._hear(np.pad(self._rest, (0, missing)))

    def _hear(self, samples: NDArray[np.int16]) -> NDArray[np.float32]:
        return (np.abs(samples.reshape(-1, FRAME_SAMPLES)).max(axis=1) > 100).astype(np.float32)


class EnergyDetector:
    def stream(self) -> EnergyStream:
        return EnergyStream()


@pytest.mark.parametrize("vad", [True, False])
def test_stream_hands_out_the_samples_of_each_chunk_in_bounded_memory(vad: bool) -> None:
    rng = np.random.default_rng(7)
    loud = np.repeat(rng.random(60) < 0.6, 2 * RATE)
    samples = np.where(loud, rng.integers(1000, 30_000, len(loud)), 0).astype(np.int16)[:-333]
    stream = ChunkStream(params({"enabled": vad}), 1, EnergyDetector())
    found, held, start = [], 0, 0
    while start < len(samples):
        size = int(rng.integers(1, 3 * RATE))
        found += stream.push(samples[start : start + size])
        held = max(held, len(stream._buffer))
        start += size
    found += stream.finish()
    assert len(found) > 5
    for chunk, part in found:
        assert chunk.channel == 1
        assert np.array_equal(part, samples[chunk.input_start : chunk.input_end])
    assert stream.num_samples == len(samples)
    assert stream.covered == sum(c.end - c.start for c, _ in found)
    assert held < 2 * 10 * RATE + 10 * RATE
    [whole] = [ChunkStream(params({"enabled": vad}), 1, EnergyDetector())]
    assert [c for c, _ in whole.push(samples) + whole.finish()] == [c for c, _ in found]


def words(*times: tuple[str, float, float]) -> tuple[Word, ...]:
    return tuple(Word(a, b, w) for w, a, b in times)


def test_owned_keeps_words_by_their_midpoint() -> None:
    spoken = words((" one", 0.2, 0.9), (" two", 0.9, 1.2), (" three", 4.0, 4.9), (" four", 4.9, 5.3))
    segment = Segment(0.2, 5.3, "one two three four", words=spoken)
    [kept] = owned([segment], 1.0, 5.0)
    assert (kept.text, kept.start, kept.end) == ("two three", 0.9, 4.9)
    assert owned([replace(segment, words=spoken[:1])], 1.0, 5.0) == ()
    assert owned([Segment(0, 6, "no words")], 1.0, 5.0)[0].text == "no words"
    assert owned([Segment(5, 6, "after"), Segment(0, 1, "before")], 1.0, 5.0) == ()
    assert owned([segment], 0.0, 6.0) == (segment,)


@given(st.lists(st.floats(0, 20), min_size=2, max_size=40), st.floats(5, 15))
def test_a_word_heard_by_both_sides_of_a_seam_is_said_once(times: list[float], seam: float) -> None:
    edges = sorted(times)
    spoken = words(*((f" w{i}", a, b) for i, (a, b) in enumerate(pairwise(edges))))
    segment = Segment(edges[0], edges[-1], "".join(w.word for w in spoken), words=spoken)
    sides = owned([segment], 0, seam) + owned([segment], seam, 21)
    assert sorted(w.word for s in sides for w in s.words) == sorted(w.word for w in spoken)


def row(start: float, end: float, text: str, words: tuple[str, ...] = ()) -> dict[str, Any]:
    segment = {"start": start, "end": end, "text": text, "words": list(words)}
    return {"input_start": start, "input_end": end, "segments": [segment] if text else []}


def test_seams_are_joined_only_where_inputs_overlap_and_words_are_missing() -> None:
    texts = [s["text"] for s in join_seams([row(0, 10, "a b c d"), row(8, 20, "c d e"), row(20, 25, "e f")])]
    assert " ".join(texts) == "a b c d e e f"
    with_words = [row(0, 10, "a b", ("a", "b")), row(8, 20, "b c", ("b", "c"))]
    assert [s["text"] for s in join_seams(with_words)] == ["a b", "b c"]
    assert [s["text"] for s in join_seams([row(0, 10, "a b"), row(8, 9, ""), row(8, 20, "b c")])] == [
        "a b",
        "c",
    ]


def test_a_chunk_that_says_nothing_joins_no_distant_ones() -> None:
    said = [
        row(0, 14, "that was it thank you very much"),
        row(40, 72, ""),
        row(68, 80, "thank you very much for it"),
    ]
    assert [s["text"] for s in join_seams(said)] == [
        "that was it thank you very much",
        "thank you very much for it",
    ]


@pytest.mark.parametrize(
    ("left", "right", "expected"),
    [
        ("we went to the old mill", "The old mill, and then home", "we went to the old mill, and then home"),
        ("a b c d uh", "x b c d e f", "a b c d e f"),
        ("so it ends here", "here we go", "so it ends here we go"),
        ("nothing shared", "at all", "nothing shared at all"),
        ("", "only right", "only right"),
        ("only left", "", "only left"),
        ("the cat", "a dog the bird", "the cat a dog the bird"),
    ],
)
def test_join_at_seam(left: str, right: str, expected: str) -> None:
    joined = " ".join(x for x in join_at_seam(left, right, 8) if x)
    assert joined.casefold().replace(",", "") == expected.casefold().replace(",", "")


@given(
    st.lists(st.sampled_from("abcdefghij"), min_size=4, max_size=30, unique=True),
    st.integers(1, 20),
    st.data(),
)
def test_join_at_seam_restores_a_text(text: list[str], overlap: int, data: st.DataObject) -> None:
    cut = data.draw(st.integers(1, len(text) - 1))
    left, right = text[: cut + overlap], text[max(0, cut - 1) :]
    assert " ".join(join_at_seam(" ".join(left), " ".join(right), 30)).split() == text
