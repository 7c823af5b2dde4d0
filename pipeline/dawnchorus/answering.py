"""From a transcript, a prompt and what is committed to the next steps towards an answer. Pure.

A transcript that fits is one step. A longer one is cut into pieces at segment borders; each becomes notes,
notes are joined in a tree until they fit, and the last step answers from them. Nothing is ever left out
without a flag. Steps are named by all that goes into them, so a committed one never runs again. Knows no
tables, no Ray and no model beyond how it counts tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from dawnchorus import ids
from dawnchorus.prompts import Prompt, one_line
from dawnchorus.records import Failure, Seconds

LAYOUT = 1
"""Version of how transcripts are laid out and cut; part of an answer's fingerprint."""
_CHAT_TOKENS = 64
"""Kept free for the model's chat template, which `num_tokens` does not count."""
_SEAM_TOKENS = 8
"""Kept free where texts meet: tokens of a whole may be a few more than those of its parts."""
_LEAST_TOKENS = 16
"""With less room than this for a piece there is no use in cutting."""
_FROM_NOTES = "(Notes on its parts, in order, since it is long.)"
_NO_NOTES = "(nothing to note)"

Kind = Literal["piece", "combine", "answer"]
CountTokens = Callable[[str], int]


@dataclass(frozen=True, slots=True)
class Model:
    """What of a language model matters here. `piece_tokens`: the most of a transcript, or of notes, in one
    step, however much more would fit."""

    num_tokens: CountTokens
    context_tokens: int
    piece_tokens: int


@dataclass(frozen=True, slots=True)
class Done:
    """A committed step: its text, why it ended, and its failure as a row of the FAILURE struct."""

    text: str
    finish_reason: str
    failure: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class Step:
    """One request to the model. `inputs` are the ids of the steps whose notes it holds; `tries` counts
    earlier ones. With a `failure` there is nothing to ask: the answer is that it failed."""

    kind: Kind
    index: int
    step_id: str
    prompt: str
    max_tokens: int
    inputs: tuple[str, ...] = ()
    flags: tuple[str, ...] = ()
    tries: int = 0
    failure: Failure | None = None


@dataclass(frozen=True, slots=True)
class Task:
    """One prompt to one transcript: which answers are meant, and when a failed step is tried again."""

    prompt: Prompt
    fingerprint: str
    transcript_hash: str
    model: Model
    again: Callable[[Mapping[str, Any]], bool]


def next_steps(task: Task, segments: Sequence[Mapping[str, Any]], done: Mapping[str, Done]) -> list[Step]:
    """The steps that can run now, given those that are `done` (by step id); none when the answer is there.

    `segments` are rows of the SEGMENT struct, with `channel`, in order of time.
    """
    try:
        return _Progress(task, done).next(segments)
    except _Short as e:
        failure = Failure("answer", "too_long", str(e), transient=False)
        return _Progress(task, done).ended(failure, 0, ())


class _Short(Exception):
    """The model's context is too small for this prompt."""


@dataclass(slots=True)
class _Progress:
    """How far one task has come."""

    task: Task
    done: Mapping[str, Done]
    flags: set[str] = field(default_factory=set)
    num_steps: int = 0

    def next(self, segments: Sequence[Mapping[str, Any]]) -> list[Step]:
        prompt, model = self.task.prompt, self.task.model
        lines, joint = transcript_lines(segments, prompt.times)
        whole = joint.join(lines)
        room = self._room(prompt.whole(""), _answer_tokens(prompt))
        if model.num_tokens(whole) <= room:
            return self._pending([self._step("answer", prompt.whole(whole), prompt.max_tokens)])
        piece_room = self._room(prompt.piece("", 9999, 9999), self._notes_tokens())
        pieces = cut(lines, piece_room, model, joint)
        texts = [prompt.piece(p, i + 1, len(pieces)) for i, p in enumerate(pieces)]
        steps = [self._step("piece", t, self._notes_tokens()) for t in texts]
        return self._pending(steps) or self._reduce(steps, room)

    def _reduce(self, steps: list[Step], room: int) -> list[Step]:
        """Notes of done steps -> the answer where they fit, else fewer notes."""
        prompt, model = self.task.prompt, self.task.model
        while True:
            failed = [f for s in steps if (f := self.done[s.step_id].failure) is not None]
            if len(failed) == len(steps):
                return self.ended(Failure(**{**failed[0], "stage": "answer"}), self.num_steps, _ids(steps))
            notes = [self._note(i, s) for i, s in enumerate(steps)]
            text = "\n".join((_FROM_NOTES, *notes))
            if model.num_tokens(text) <= room:
                break
            combine_room = self._room(prompt.combine(""), self._notes_tokens())
            groups = group([model.num_tokens(n) + 1 for n in notes], combine_room)
            if len(groups) == len(notes):
                raise _Short("Two notes on parts of the recording do not fit the model's context together.")
            steps = [self._joined([steps[i] for i in g], [notes[i] for i in g]) for g in groups]
            if pending := self._pending(steps):
                return pending
        return self._pending([self._step("answer", prompt.whole(text), prompt.max_tokens, _ids(steps))])

    def _joined(self, steps: list[Step], notes: list[str]) -> Step:
        """The step that makes one note of several; a note alone stays what it is."""
        if len(steps) == 1:
            return steps[0]
        text = self.task.prompt.combine("\n".join(notes))
        return self._step("combine", text, self._notes_tokens(), _ids(steps))

    def _notes_tokens(self) -> int:
        """Most tokens of one note: so few that several fit a small context, or a piece, together."""
        model = self.task.model
        return min(self.task.prompt.notes_tokens, model.context_tokens // 8, model.piece_tokens // 3)

    def _note(self, i: int, step: Step) -> str:
        """The notes of a done step, as a line; what is missing in them becomes a flag."""
        made = self.done[step.step_id]
        if made.failure is not None:
            self.flags.add("partial")
            return f"Part {i + 1}: (this part could not be read)"
        if made.finish_reason == "length":
            self.flags.add("notes_cut")
        return f"Part {i + 1}: {one_line(made.text) or _NO_NOTES}"

    def _room(self, empty: str, answer_tokens: int) -> int:
        """Tokens for data in a prompt that is `empty` without it.

        Raises:
            _Short: there are hardly any.
        """
        model = self.task.model
        used = model.num_tokens(empty) + answer_tokens + _CHAT_TOKENS + _SEAM_TOKENS
        if model.context_tokens - used < _LEAST_TOKENS:
            raise _Short(
                f"The prompt and its answer take {used} of the model's {model.context_tokens} tokens, "
                "which leaves no room for the transcript."
            )
        return min(model.piece_tokens, model.context_tokens - used)

    def _step(self, kind: Kind, text: str, max_tokens: int, inputs: tuple[str, ...] = ()) -> Step:
        self.num_steps += 1
        name = ids.step_id(self.task.fingerprint, self.task.transcript_hash, text)
        flags = tuple(sorted(self.flags)) if kind == "answer" else ()
        return Step(kind, self.num_steps - 1, name, text, max_tokens, inputs, flags)

    def _pending(self, steps: Sequence[Step]) -> list[Step]:
        """Those of `steps` that are not done, or deserve another try."""
        found = []
        for step in steps:
            made = self.done.get(step.step_id)
            if made is None:
                found.append(step)
            elif made.failure is not None and self.task.again(made.failure):
                found.append(replace(step, tries=made.failure["attempts"]))
        return found

    def ended(self, failure: Failure, index: int, inputs: tuple[str, ...]) -> list[Step]:
        """The step that commits a failure of the whole answer, unless it is committed."""
        name = ids.step_id(self.task.fingerprint, self.task.transcript_hash, f"failed: {failure}")
        if name in self.done:
            return []
        return [Step("answer", index, name, "", 0, inputs, (), 0, failure)]


def _ids(steps: Iterable[Step]) -> tuple[str, ...]:
    return tuple(s.step_id for s in steps)


def _answer_tokens(prompt: Prompt) -> int:
    """Tokens to keep free for an answer; twice and some where it may be asked for once more."""
    return prompt.max_tokens if prompt.json_schema is None else 2 * prompt.max_tokens + 160


def transcript_lines(segments: Sequence[Mapping[str, Any]], times: bool) -> tuple[list[str], str]:
    """One neutral line per segment that says anything, and what joins them.

    Lines name the channel or speaker where there are several, and the time with `times`; without both a
    transcript is running text.
    """
    said = [(s, one_line(s["text"] or "")) for s in segments]
    said = [(s, text) for s, text in said if text]
    voices = {_voice(s) for s, _ in said}
    labelled = len(voices) > 1
    lines = [
        (f"[{_clock(s['start'])}] " if times else "") + (f"{_voice(s)}: " if labelled else "") + text
        for s, text in said
    ]
    return lines, "\n" if labelled or times else " "


def _voice(segment: Mapping[str, Any]) -> str:
    if segment["speaker"]:
        return one_line(segment["speaker"])
    return "" if segment["channel"] is None else f"Channel {segment['channel']}"


def _clock(seconds: Seconds) -> str:
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def cut(lines: Sequence[str], room: int, model: Model, joint: str) -> list[str]:
    """Pieces of at most `room` tokens, about equally long, cut between lines; a line that is longer than
    that is cut at words. Every word is in exactly one piece."""
    short = [part for line in lines for part in _halved(line, room, model.num_tokens)]
    sizes = [model.num_tokens(line) + 1 for line in short]
    return [
        text
        for g in group(sizes, room)
        for text in _fitting([short[i] for i in g], room, model.num_tokens, joint)
    ]


def group(sizes: Sequence[int], room: int) -> list[list[int]]:
    """Neighbours, by index, in as few groups of at most `room` as they need, and about equally large; what
    is larger alone stands alone."""
    share = sum(sizes) / max(1, -(-sum(sizes) // max(1, room)))
    groups: list[list[int]] = []
    held, before = 0, 0
    for i, size in enumerate(sizes):
        if not groups or held + size > room or before + size / 2 > share * len(groups):
            groups.append([])
            held = 0
        groups[-1].append(i)
        held, before = held + size, before + size
    return groups


def _fitting(lines: list[str], room: int, num_tokens: CountTokens, joint: str) -> Iterator[str]:
    """Lines as one text, or as halves where they have more tokens together than one by one."""
    text = joint.join(lines)
    if len(lines) < 2 or num_tokens(text) <= room:
        yield text
        return
    middle = len(lines) // 2
    yield from _fitting(lines[:middle], room, num_tokens, joint)
    yield from _fitting(lines[middle:], room, num_tokens, joint)


def _halved(line: str, room: int, num_tokens: CountTokens) -> Iterator[str]:
    """A line in parts of at most `room` tokens, cut between words where it has several."""
    words = line.split(" ")
    if num_tokens(line) < room or (len(words) < 2 and len(line) < 2):
        yield line
        return
    middle = len(words) // 2
    whole = (line[: len(line) // 2], line[len(line) // 2 :])
    for half in (" ".join(words[:middle]), " ".join(words[middle:])) if middle else whole:
        yield from _halved(half, room, num_tokens)
