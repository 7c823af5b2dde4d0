"""Takes: decodings of one waveform, judged, compared, split and turned into Hypotheses. Pure.

For engines that decode a chunk more than once when the first result is doubtful; knows no model.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from dawnchorus.engines.base import Waveform
from dawnchorus.engines.guards import compression_ratio, longest_stretch, quietest, repeats, unlooped
from dawnchorus.records import Failure, FinishReason, Hypothesis, Seconds, Segment, Word

# Fast English has 4-5 words or about 6 tokens a second.
_TOKENS_PER_SECOND = 8.0
_TOKENS_EXTRA = 16
_REPETITIVE = 2.4  # compression ratio of text that repeats itself, as in Whisper's own decoding
# No word begins or ends for so long: words beside short pauses reached 1.4 s, omissions began at 4 s.
_OMISSION: Seconds = 2.0
_SHORTEST_SPLIT: Seconds = 2.0
_SHORTEST_PART: Seconds = 0.5
_LOOPS = frozenset({"length_limit", "repetition", "too_fast"})


@dataclass(frozen=True, slots=True)
class Take:
    """One decoding of one waveform. `doubts`: reasons not to believe it; an `omission` has a `gap`."""

    text: str
    num_tokens: int
    avg_logprob: float
    doubts: tuple[str, ...]
    words: tuple[Word, ...]
    gap: tuple[Seconds, Seconds] = (0.0, 0.0)
    failure: Failure | None = None

    @property
    def loops(self) -> bool:
        """Whether the decoder did not find the end."""
        return not _LOOPS.isdisjoint(self.doubts)

    @property
    def doubtful(self) -> bool:
        """Whether decoding it in another way may help."""
        return any(d != "omission" for d in self.doubts)

    @property
    def rank(self) -> tuple[bool, bool, bool, bool, float]:
        """The better take has the higher rank."""
        repeats, omits = "repeats" in self.doubts, "omission" in self.doubts
        return self.failure is None, not self.loops, not repeats, not omits, self.avg_logprob


def judged(
    text: str, num_tokens: int, avg_logprob: float, words: Sequence[Word], seconds: Seconds, most_tokens: int
) -> tuple[tuple[str, ...], tuple[Seconds, Seconds]]:
    """Doubts about a decoding of `seconds` of audio with a limit of `most_tokens`, and its longest gap."""
    gap = longest_stretch(words, seconds)
    doubts = {
        "length_limit": num_tokens >= most_tokens,
        "repetition": compression_ratio(text) > _REPETITIVE,
        "too_fast": num_tokens > token_limit(seconds),
        "repeats": repeats(text),
        "omission": bool(words) and gap[1] - gap[0] > _OMISSION,
    }
    return tuple(name for name, doubtful in doubts.items() if doubtful), gap


def token_limit(seconds: Seconds) -> int:
    """More tokens than anybody speaks in this time."""
    return round(seconds * _TOKENS_PER_SECOND) + _TOKENS_EXTRA


def cut(take: Take, waveform: Waveform, sampling_rate: int) -> int | None:
    """Sample to split at: inside what was left out, in the middle of what loops; None: no need or room."""
    end = len(waveform) / sampling_rate
    if end < _SHORTEST_SPLIT or not (take.loops or "omission" in take.doubts):
        return None
    start, stop = (end / 3, end * 2 / 3) if take.loops else take.gap
    low, high = max(start, _SHORTEST_PART), min(stop, end - _SHORTEST_PART)
    return quietest(waveform, sampling_rate, low, high) if low < high else None


def out_of_memory(e: Exception) -> Take:
    failure = Failure("transcribe", "out_of_memory", f"Out of memory for one chunk: {e}.", transient=True)
    return Take("", 0, 0.0, (), (), failure=failure)


def hypothesis(take: Take, seconds: Seconds) -> Hypothesis:
    """A take as a Hypothesis; loops are said once."""
    if take.failure is not None:
        return Hypothesis(finish_reason="error", error=take.failure)
    text, words = take.text, take.words
    if take.loops:
        text, words = unlooped(text), ()
    blank = Hypothesis(
        (), "empty", avg_logprob=take.avg_logprob, num_tokens=take.num_tokens, flags=take.doubts
    )
    if not any(c.isalnum() for c in text):
        return blank
    start, end = (words[0].start, words[-1].end) if words else (0.0, seconds)
    segment = Segment(start, end, text, take.avg_logprob, words=words)
    reason: FinishReason = "length" if "length_limit" in take.doubts else "stop"
    return replace(blank, segments=(segment,), finish_reason=reason)


def joined(whole: Hypothesis, left: Hypothesis, right: Hypothesis, shift: Seconds) -> Hypothesis:
    """Both halves as one Hypothesis; an error of either half is the error of the whole."""
    if left.error or right.error:
        return left if left.error else right
    parts = [h.avg_logprob * h.num_tokens for h in (left, right) if h.avg_logprob is not None]
    moved = tuple(
        replace(
            s,
            start=s.start + shift,
            end=s.end + shift,
            words=tuple(replace(w, start=w.start + shift, end=w.end + shift) for w in s.words),
        )
        for s in right.segments
    )
    segments = left.segments + moved
    num_tokens = left.num_tokens + right.num_tokens
    reasons = {left.finish_reason, right.finish_reason}
    return Hypothesis(
        segments,
        "length" if "length" in reasons else "stop" if segments else "empty",
        sum(parts) / max(1, num_tokens),
        num_tokens,
        1 + left.num_splits + right.num_splits,
        tuple(dict.fromkeys(("split", *whole.flags, *left.flags, *right.flags))),
    )
