"""Greedy decoding of a left-padded batch by a transformers model, with the log-probability of what it
chose. Imports torch: only for processes that hold a model.

Keeps one number per row and step, never the logits: a vocabulary of 152,000 over 128 steps of 192 rows
would be 15 GB.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import transformers
from transformers.generation.logits_process import LogitsProcessor, LogitsProcessorList
from transformers.generation.stopping_criteria import StoppingCriteria, StoppingCriteriaList

_GenerationConfig: Any = transformers.GenerationConfig


class _Chosen(LogitsProcessor):
    """Log-probability of the best token of every row and step, which is the one greedy decoding takes."""

    def __init__(self) -> None:
        self.steps: list[torch.Tensor] = []

    def __call__(self, input_ids: Any, scores: Any) -> Any:
        wide = scores.float()
        self.steps.append(wide.max(-1).values - wide.logsumexp(-1))
        return scores


class _OwnLimit(StoppingCriteria):
    """Every row ends at its own limit, whatever its neighbours may have."""

    def __init__(self, most: torch.Tensor) -> None:
        self._most = most

    def __call__(self, input_ids: Any, scores: Any, **_: Any) -> Any:
        return input_ids.shape[1] >= self._most


def generate(
    model: Any,
    ids: Sequence[Sequence[int]],
    mask: Sequence[Sequence[int]],
    most: Sequence[int],
    ends: Sequence[int],
    padding: int,
) -> list[tuple[list[int], bool, float]]:
    """Answers to left-padded prompts, shape (rows, width) with their attention mask.

    `most` new tokens per row; `ends` are the ids that end an answer. Returns for every row its ids
    without the end, whether the model ended it, and the mean log-probability of its tokens (natural
    logarithm, the end included).
    """
    width = len(ids[0])
    chosen = _Chosen()
    config = _GenerationConfig(
        max_new_tokens=max(most),
        do_sample=False,
        num_beams=1,
        eos_token_id=list(ends) or None,
        pad_token_id=padding,
    )
    with torch.inference_mode():
        made = model.generate(
            input_ids=torch.tensor(ids, device=model.device),
            attention_mask=torch.tensor(mask, device=model.device),
            generation_config=config,
            logits_processor=LogitsProcessorList([chosen]),
            stopping_criteria=StoppingCriteriaList(
                [_OwnLimit(torch.tensor([width + n for n in most], device=model.device))]
            ),
        )
    logprobs = torch.stack(chosen.steps, 1).tolist()
    return [
        _row(row[:n], scores, set(ends))
        for row, scores, n in zip(made[:, width:].tolist(), logprobs, most, strict=True)
    ]


def _row(ids: list[int], logprobs: list[float], ends: set[int]) -> tuple[list[int], bool, float]:
    """One row up to its end, with the mean over what counts."""
    at = next((i for i, token in enumerate(ids) if token in ends), None)
    ended = at is not None
    kept = ids if at is None else ids[:at]
    num = len(kept) + ended
    # The last digits differ with the batch.
    return kept, ended, round(sum(logprobs[:num]) / max(1, num), 4)
