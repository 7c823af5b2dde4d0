"""Greedy generation from embeddings, for many rows at once: ids, their log-probability, how they ended.

Three ways to the same ids (in float32): `eager` grows the cache with every token; `static` has caches and
shapes of fixed sizes, so that a GPU replays its kernels; `continuous` fills the place of a finished row
at once. Knows embeddings, not where they come from.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from dawnchorus.engines.salm_model import SalmModel

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, slots=True)
class Output:
    """Token ids without the end token; `logprob` is the sum over them and the end token, in nats;
    `stopped`: the model found an end within the limit."""

    ids: list[int]
    logprob: float
    stopped: bool

    @property
    def avg_logprob(self) -> float:
        """Per token, the end token included."""
        return self.logprob / max(1, len(self.ids) + self.stopped)


def generate(
    model: SalmModel, rows: Sequence[torch.Tensor], limits: Sequence[int], decoder: str
) -> list[Output]:
    """One Output per row of embeddings `(num_tokens, hidden)`, of at most so many tokens each."""
    if decoder == "continuous":
        found = model.continuous().generate(rows, limits)
        return [_output(model, *f, limit) for f, limit in zip(found, limits, strict=True)]
    return _together(model, rows, limits, static=decoder == "static")


def _together(
    model: SalmModel, rows: Sequence[torch.Tensor], limits: Sequence[int], static: bool
) -> list[Output]:
    import torch
    from transformers import GenerationConfig, LogitsProcessorList, StoppingCriteriaList

    width, most, spare = max(len(r) for r in rows), max(limits), 0
    if static:  # few shapes: each is compiled once, in a minute or so on a GPU
        width, most, spare = _step(width, 128), _step(most, 256), _power(len(rows)) - len(rows)
        model.llm._previous_max_cache_length = -1  # else a row costs as much as the longest ever seen
    rows, limits = [*rows, *[rows[0]] * spare], [*limits, *[1] * spare]
    embeddings = rows[0].new_zeros((len(rows), width, rows[0].shape[1]))
    mask = torch.zeros((len(rows), width), dtype=torch.long, device=embeddings.device)
    for i, row in enumerate(rows):
        embeddings[i, width - len(row) :] = row
        mask[i, width - len(row) :] = 1
    config: Any = GenerationConfig(  # type: ignore[no-untyped-call]
        max_new_tokens=most,
        eos_token_id=model.end_ids,
        pad_token_id=model.pad_id,
        do_sample=False,
        cache_implementation="static" if static else None,
    )
    chosen: list[torch.Tensor] = []
    with torch.inference_mode():
        ids = model.llm.generate(
            inputs_embeds=embeddings,
            attention_mask=mask,
            generation_config=config,
            logits_processor=LogitsProcessorList([_kept(chosen)]),
            stopping_criteria=StoppingCriteriaList([_limits(limits, embeddings.device)]),
        )
    logprobs = torch.stack(chosen, 1).cpu().tolist()
    found = zip(ids.tolist(), logprobs, limits, strict=True)
    return [_output(model, i, p, n) for i, p, n in found][: len(rows) - spare]


def _kept(chosen: list[torch.Tensor]) -> Any:
    """A logits processor that changes nothing and keeps the log-probability of the best token: all
    logits of one batch would be gigabytes."""
    import torch

    def keep(ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        chosen.append(scores.amax(-1) - torch.logsumexp(scores, -1))
        return scores

    return keep


def _limits(limits: Sequence[int], device: torch.device) -> Any:
    """A stopping criterion per row: a row alone and a row beside longer ones end alike."""
    import torch

    most = torch.tensor(list(limits), device=device)

    def reached(ids: torch.Tensor, scores: Any, **_: Any) -> torch.Tensor:
        return most <= ids.shape[1]

    return reached


def _output(model: SalmModel, ids: Sequence[int], logprobs: Sequence[float], limit: int) -> Output:
    ids = list(ids)[:limit]
    ends = [i for i, token in enumerate(ids) if token in model.end_ids]
    size = ends[0] if ends else len(ids)
    return Output(ids[:size], sum(logprobs[: size + bool(ends)]), bool(ends))


def _step(size: int, step: int) -> int:
    return -(-size // step) * step


def _power(size: int) -> int:
    return 1 << (size - 1).bit_length()
