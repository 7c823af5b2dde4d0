"""Steps towards an answer: cut, noted, joined in a tree, answered; nothing lost without a flag."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dawnchorus.answering import Done, Model, Step, Task, cut, group, next_steps, transcript_lines
from dawnchorus.prompts import SHIPPED, Prompt

PLAIN = Prompt("plain", "Say.\n{transcript}", max_tokens=20, notes_tokens=30)


def words(text: str) -> int:
    return len(text.split())


def thirds(text: str) -> int:
    """Tokens across word borders: a whole has other tokens than its parts."""
    return math.ceil(len(text) / 3)


def segments(*texts: str, channel: int | None = None) -> list[dict[str, Any]]:
    return [
        {"channel": channel, "speaker": None, "start": 5.0 * i, "end": 5.0 * i + 4, "text": t}
        for i, t in enumerate(texts)
    ]


def talk(count: int, length: int = 10) -> list[dict[str, Any]]:
    return segments(*(" ".join(f"s{i}w{n}" for n in range(length)) for i in range(count)))


def task(prompt: Prompt = PLAIN, context: int = 4096, piece: int = 3500, again: bool = False) -> Task:
    return Task(prompt, "fp", "th", Model(words, context, piece), lambda failure: again)


def failed(transient: bool = False) -> dict[str, Any]:
    return {"stage": "answer", "kind": "bad", "message": "m", "transient": transient, "attempts": 1}


def note(step: Step) -> Done:
    return Done(f"note {step.step_id[:6]} " + "and so on " * 4, "stop")


def play(
    of: Task, said: Sequence[Mapping[str, Any]], answer: Callable[[Step], Done] = note
) -> tuple[list[list[Step]], dict[str, Done]]:
    """Rounds of steps until there are none."""
    done: dict[str, Done] = {}
    rounds = []
    while ready := next_steps(of, said, done):
        rounds.append(ready)
        done |= {s.step_id: answer(s) for s in ready}
        assert len(rounds) < 12
    return rounds, done


def test_a_short_transcript_is_one_step() -> None:
    rounds, _ = play(task(), talk(3))
    [[step]] = rounds
    assert (step.kind, step.index, step.inputs, step.flags) == ("answer", 0, (), ())
    assert all(f"s{i}w{n}" in step.prompt for i in range(3) for n in range(10))


def test_a_long_one_is_noted_joined_and_answered() -> None:
    rounds, _ = play(task(context=400, piece=60), talk(60))
    kinds = [{s.kind for s in steps} for steps in rounds]
    assert kinds[0] == {"piece"}
    assert kinds[1] == {"combine"}
    assert kinds[-1] == {"answer"}
    pieces = rounds[0]
    held = [w for s in pieces for w in s.prompt.split() if w.startswith("s") and "w" in w and w[1].isdigit()]
    assert held == [w for s in talk(60) for w in s["text"].split()], "every word once, in order"
    joined = [i for steps in rounds[1:] for s in steps for i in s.inputs]
    assert set(joined) == {s.step_id for steps in rounds[:-1] for s in steps}
    assert len(joined) == len(set(joined)), "every note goes into one step"
    for step in (s for steps in rounds for s in steps):
        assert words(step.prompt) + step.max_tokens <= 400
    ids = [s.step_id for steps in rounds for s in steps]
    assert len(set(ids)) == len(ids)
    assert [s.index for steps in rounds for s in steps] == list(range(len(ids)))


@pytest.mark.parametrize("name", ["summary", "action_items", "topics"])
def test_shipped_prompts_fit_small_models(name: str) -> None:
    rounds, _ = play(task(SHIPPED[name], context=2048), talk(900))
    assert rounds[-1][0].kind == "answer"
    for step in (s for steps in rounds for s in steps):
        assert words(step.prompt) + step.max_tokens <= 2048


def test_notes_as_long_as_a_prompt_allows_still_fit_together() -> None:
    """Two of 1,900 tokens did not fit a piece of 3,500: every long transcript failed as too long."""
    wordy = replace(PLAIN, notes_tokens=2000)
    rounds, done = play(task(wordy, 40_960), talk(1000), lambda s: Done("n " * (s.max_tokens - 5), "stop"))
    assert rounds[-1][0].kind == "answer"
    assert all(d.failure is None for d in done.values())
    assert all(s.failure is None for r in rounds for s in r)


def test_steps_are_the_same_whatever_was_done_before() -> None:
    """Resuming at any point asks for exactly what is missing."""
    of, said = task(context=400, piece=60), talk(30)
    rounds, done = play(of, said)
    for n, steps in enumerate(rounds):
        before = {s.step_id: done[s.step_id] for earlier in rounds[:n] for s in earlier}
        assert next_steps(of, said, before) == steps
        half = before | {s.step_id: done[s.step_id] for s in steps[::2]}
        expected = [s for i, s in enumerate(steps) if i % 2]
        assert next_steps(of, said, half)[: len(expected)] == expected or not expected
    assert next_steps(of, said, done) == []


def test_a_piece_that_failed_is_said() -> None:
    of, said = task(context=400, piece=60), talk(20)
    first = next_steps(of, said, {})[1].step_id
    rounds, done = play(of, said, lambda s: Done("", "error", failed()) if s.step_id == first else note(s))
    [last] = rounds[-1]
    assert last.flags == ("partial",)
    assert "Part 2: (this part could not be read)" in "".join(s.prompt for steps in rounds[1:] for s in steps)
    assert next_steps(of, said, done) == []


def test_notes_that_were_cut_are_said() -> None:
    rounds, _ = play(task(context=400, piece=60), talk(20), lambda s: Done("n", "length"))
    assert rounds[-1][0].flags == ("notes_cut",)


def test_when_every_piece_failed_so_did_the_answer() -> None:
    of, said = task(context=400, piece=60), talk(20)
    rounds, done = play(of, said, lambda s: Done("", "error", failed()))
    [last] = rounds[-1]
    assert last.failure is not None
    assert (last.failure.kind, last.prompt, last.kind) == ("bad", "", "answer")
    assert next_steps(of, said, done) == []


def test_a_passing_failure_is_tried_again_and_counted() -> None:
    said = talk(2)
    [step] = next_steps(task(), said, {})
    done = {step.step_id: Done("", "error", failed(transient=True))}
    [again] = next_steps(task(again=True), said, done)
    assert (again.step_id, again.tries) == (step.step_id, 1)
    assert next_steps(task(again=False), said, done) == []


@pytest.mark.parametrize(("context", "said"), [(88, "no room"), (108, "do not fit")])
def test_a_context_that_is_too_small_is_a_failure_that_says_so(context: int, said: str) -> None:
    of = task(
        Prompt(
            "p", "{transcript}", 1, map_template="{transcript}", combine_template="{notes}", notes_tokens=1
        ),
        context,
    )
    long = lambda s: Done("x " * 40, "length")  # noqa: E731
    rounds, done = play(of, talk(30), long)
    [last] = rounds[-1]
    assert last.failure is not None
    assert last.failure.kind == "too_long"
    assert said in last.failure.message
    assert next_steps(of, talk(30), done) == []


def test_voices_and_times_mark_the_lines() -> None:
    call = [*segments("hello", channel=0), *segments("<|im_end|>\nbye", "  ", channel=1)]
    assert transcript_lines(call, times=False) == (
        ["Channel 0: hello", "Channel 1: \u2039|im_end|\u203a bye"],
        "\n",
    )
    assert transcript_lines(segments("a", "b"), times=True) == (["[0:00] a", "[0:05] b"], "\n")
    assert transcript_lines(segments("a", "b"), times=False) == (["a", "b"], " ")


TEXTS = st.lists(st.text(st.sampled_from("ab ,."), min_size=1, max_size=60).filter(str.strip), max_size=30)


@given(TEXTS, st.integers(1, 40), st.sampled_from([words, thirds]))
def test_every_segment_is_in_exactly_one_piece_and_pieces_fit(
    texts: list[str], room: int, count: Callable[[str], int]
) -> None:
    lines = [" ".join(t.split()) for t in texts]
    model = Model(count, 10**6, room)
    pieces = cut(lines, room, model, " ")
    assert "".join("".join(pieces).split()) == "".join("".join(lines).split())
    assert pieces == cut(list(lines), room, model, " ")
    for piece in pieces:
        assert count(piece) <= room or len(piece) < 2
    if room >= 2 * max((count(x) + 1 for x in lines), default=0):
        ends, at = set(), 0
        for line in lines:
            at += len(line.replace(" ", ""))
            ends.add(at)
        cuts, at = [], 0
        for piece in pieces:
            at += len(piece.replace(" ", ""))
            cuts.append(at)
        assert set(cuts) <= ends, "cut between segments"


@given(st.lists(st.integers(1, 50), max_size=60), st.integers(50, 200))
def test_groups_are_few_and_even(sizes: list[int], room: int) -> None:
    groups = group(sizes, room)
    assert [i for g in groups for i in g] == list(range(len(sizes)))
    totals = [sum(sizes[i] for i in g) for g in groups]
    assert all(t <= room for t in totals)
    assert all(a + b > room / 2 for a, b in pairwise(totals)), "no crumbs"
