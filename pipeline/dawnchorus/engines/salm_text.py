"""Text to token ids and back, with the tokenizer's file alone: no model, no transformers.

Untrusted text can never become a special token: it is encoded by a copy of the tokenizer that has none.
LLM mode speaks ChatML with an empty thinking block, as Qwen3 does when it shall not think.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dawnchorus.engines.salm_files import INSTALL
from dawnchorus.errors import EngineUnavailable

if TYPE_CHECKING:
    from tokenizers import Tokenizer

_START, _END = "<|im_start|>", "<|im_end|>"
_THINK, _THOUGHT = "<think>", "</think>"
_THINKING = re.compile(f"{_THINK}.*?{_THOUGHT}", re.DOTALL)


class TextCodec:
    """The tokenizer of one checkpoint."""

    def __init__(self, folder: Path) -> None:
        """Reads `tokenizer.json`. Raises EngineUnavailable: there is none, or it is broken."""
        try:
            from tokenizers import Tokenizer
        except ImportError as e:
            raise EngineUnavailable("tokenizers is not installed.", INSTALL) from e
        path = folder / "tokenizer.json"
        try:
            tree: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
            self._whole: Tokenizer = Tokenizer.from_str(json.dumps(tree))
            self._plain: Tokenizer = Tokenizer.from_str(json.dumps(tree | {"added_tokens": []}))
        # The library raises plain Exception for a broken file.
        except Exception as e:
            raise EngineUnavailable(f"{path} is no tokenizer: {e}.", "Fetch the model again.") from e
        self._added = {str(t["content"]): int(t["id"]) for t in tree.get("added_tokens", ())}

    def count(self, text: str) -> int:
        """Tokens of untrusted text."""
        return len(self.encode(text))

    def encode(self, text: str) -> list[int]:
        """Token ids of untrusted text, none of them special."""
        ids: list[int] = self._plain.encode(text, add_special_tokens=False).ids
        return ids

    def chat(self, prompt: str) -> list[int]:
        """One user turn and the opening of its answer, in ChatML.

        Raises:
            EngineUnavailable: the model was not trained on ChatML.
        """
        if _START not in self._added or _END not in self._added:
            raise EngineUnavailable("This model's tokenizer has no ChatML tokens.", "Choose a Qwen model.")
        start, end, line = self._added[_START], self._added[_END], self.encode("\n")
        ids = [start, *self.encode(f"user\n{prompt}"), end, *line]
        ids += [start, *self.encode("assistant\n")]
        if _THINK in self._added and _THOUGHT in self._added:
            blank = self.encode("\n\n")
            ids += [self._added[_THINK], *blank, self._added[_THOUGHT], *blank]
        return ids

    def decode(self, ids: Sequence[int]) -> str:
        """Text of token ids, without special tokens."""
        text: str = self._whole.decode(list(ids), skip_special_tokens=True)
        return text.strip()


def without_thoughts(text: str) -> tuple[str, bool]:
    """The text without thinking spans, and whether a span was left open (then nothing after it counts)."""
    text = _THINKING.sub("", text)
    before, opened, _ = text.partition(_THINK)
    # A lone end: the span was opened in the prompt, and all before it is thought.
    _, closed, after = before.rpartition(_THOUGHT)
    return (after if closed else before).strip(), bool(opened)
