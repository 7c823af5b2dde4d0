"""Text in, text out, for any chat model: prompts as token ids, answers without thoughts. Pure.

`Vocabulary` counts and encodes text by a `tokenizer.json` alone: no torch, no transformers, no weights.
User text can never become a control token, whatever it says. Knows no model and no template language:
whoever has the template renders it, `Frame` keeps what stands around the user's turn.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from dawnchorus.engines.checks import error
from dawnchorus.errors import EngineUnavailable
from dawnchorus.records import Hypothesis, Segment

if TYPE_CHECKING:
    from tokenizers import Tokenizer

OPEN, CLOSE = "<think>", "</think>"
_TURN = "what-the-user-says-7c41f0"
"""Stands for the user's turn while a template is rendered."""


class Vocabulary:
    """The tokenizer of a model, from the text of its `tokenizer.json`."""

    def __init__(self, tokenizer_json: str) -> None:
        """Raises ValueError where it is no tokenizer."""
        from tokenizers import Tokenizer

        tree = json.loads(tokenizer_json)
        if not isinstance(tree, dict):
            raise ValueError("no tokenizer: not an object")
        # A file may ask for truncation or padding: never here.
        tree |= {"truncation": None, "padding": None}
        added = tree.get("added_tokens") or []
        try:
            self._whole: Tokenizer = Tokenizer.from_str(json.dumps(tree))
            # Without its added tokens a tokenizer cannot see one in a text. Runs of blanks stay: they
            # control nothing, and some models know line breaks in no other form.
            plain = [t for t in added if not t["content"].strip()]
            self._plain: Tokenizer = Tokenizer.from_str(json.dumps(tree | {"added_tokens": plain}))
        except Exception as e:  # tokenizers raises nothing more special
            raise ValueError(f"no tokenizer: {e}") from e
        # Where tokens before them are gone, they come back with other ids.
        self._moved = {self._plain.token_to_id(t["content"]): t["id"] for t in plain}
        unknown = tree["model"].get("unk_token")
        # Unigram and word models may know a control token as an ordinary piece, too.
        self._control = {
            t["id"] for t in added if t["content"].strip() and t["content"] not in (unknown, OPEN, CLOSE)
        }
        self._special = {t["id"] for t in added if t.get("special") and t["content"] not in (OPEN, CLOSE)}

    @classmethod
    def from_file(cls, path: Path) -> Vocabulary:
        """Read a `tokenizer.json`.

        Raises:
            EngineUnavailable: there is none, or it is not one.
        """
        try:
            return cls(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as e:
            raise EngineUnavailable(f"{path} is no tokenizer: {e}.", "Copy the model's files anew.") from e

    def num_tokens(self, text: str) -> int:
        """Tokens of a user's text."""
        return len(self.content(text))

    def content(self, text: str) -> list[int]:
        """Ids of a user's text; none of them controls anything."""
        whole = text.encode("utf-8", "replace").decode()  # half a surrogate pair is no text
        ids = (self._moved.get(i, i) for i in self._plain.encode(whole, add_special_tokens=False).ids)
        return [i for i in ids if i not in self._control]

    def template(self, text: str) -> list[int]:
        """Ids of a template's text, in which control tokens are what they are."""
        ids: list[int] = self._whole.encode(text, add_special_tokens=False).ids
        return ids

    def surrounding(self) -> tuple[list[int], list[int]]:
        """What the tokenizer itself puts before a bare text: for models without a chat template. (What
        it puts behind would end the text before the answer.)"""
        inner = self._whole.encode("a", add_special_tokens=False).ids
        outer = self._whole.encode("a", add_special_tokens=True).ids
        starts = [i for i in range(len(outer)) if outer[i : i + len(inner)] == inner]
        return (outer[: starts[0]] if starts else []), []

    def text(self, ids: Sequence[int]) -> str:
        """Ids as text, without special tokens; thoughts are still in it."""
        kept = [i for i in ids if i not in self._special]
        said: str = self._whole.decode(kept, skip_special_tokens=False)
        return said


@dataclass(frozen=True, slots=True)
class Frame:
    """Token ids around the user's turn. `thinks`: the answer begins inside a thought."""

    before: tuple[int, ...]
    after: tuple[int, ...]
    thinks: bool = False

    def __len__(self) -> int:
        return len(self.before) + len(self.after)

    def prompt(self, content: Sequence[int]) -> list[int]:
        """Ids of a whole prompt."""
        return [*self.before, *content, *self.after]


def frame(vocabulary: Vocabulary, render: Callable[[str], str] | None) -> Frame:
    """The frame of a template; `render` puts a user's turn into it. None: the model has no template.

    Raises:
        EngineUnavailable: the template does not hold the turn exactly once, as it is.
    """
    if render is None:
        before, after = vocabulary.surrounding()
        return Frame(tuple(before), tuple(after))
    parts = render(_TURN).split(_TURN)
    if len(parts) != 2:
        raise EngineUnavailable(
            f"The model's chat template repeats or leaves out what the user says ({len(parts) - 1} times).",
            "Choose a model whose template holds the user's turn once.",
        )
    thinks = parts[1].count(OPEN) > parts[1].count(CLOSE)
    return Frame(tuple(vocabulary.template(parts[0])), tuple(vocabulary.template(parts[1])), thinks)


def without_thoughts(text: str) -> str | None:
    """The text without its `<think>` spans, or None where one never ends.

    A closing tag without an opening one ends a thought that began in the prompt.
    """
    while CLOSE in text:
        head, _, tail = text.partition(CLOSE)
        text = head.partition(OPEN)[0] + tail if OPEN in head else tail
    return None if OPEN in text else text.strip()


def too_long(num_prompt: int, max_new_tokens: int, context_tokens: int) -> Hypothesis | None:
    """None for a prompt that fits with its answer, else the error Hypothesis that answers it."""
    if num_prompt + max_new_tokens <= context_tokens:
        return None
    message = (
        f"The prompt has {num_prompt} tokens and its answer may have {max_new_tokens}, "
        f"together more than the model's {context_tokens}."
    )
    return error("too_long", message, stage="answer")


def answer(text: str, num_tokens: int, ended: bool, avg_logprob: float | None = None) -> Hypothesis:
    """A decoded answer as a Hypothesis. `ended`: the model itself ended it; else its limit did."""
    said = without_thoughts(text)
    if said is None:
        return error(
            "unfinished_thought",
            f"The model was still thinking after {num_tokens} tokens.",
            stage="answer",
        )
    if not said:
        return Hypothesis((), "empty", avg_logprob, num_tokens)
    return Hypothesis(
        (Segment(0.0, 0.0, said, avg_logprob),), "stop" if ended else "length", avg_logprob, num_tokens
    )


def padded(prompts: Sequence[Sequence[int]], padding: int) -> tuple[list[list[int]], list[list[int]]]:
    """Prompts padded on the left to the longest, and their attention mask."""
    width = max(map(len, prompts))
    gaps = [width - len(p) for p in prompts]
    ids = [[padding] * gap + list(p) for gap, p in zip(gaps, prompts, strict=True)]
    mask = [[0] * gap + [1] * len(p) for gap, p in zip(gaps, prompts, strict=True)]
    return ids, mask
