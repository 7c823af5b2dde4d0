"""Continuous batching of rows of embeddings: a row that finishes makes room for the next at once.

transformers has it for token ids only. Here every embedding of a prompt, heard or written, gets an id
beyond the vocabulary, and the model's embedding looks those up in a table. Blocks of the cache are never
shared between prompts: sharing goes by ids, and these mean something else in every call.

For transcription only: its CUDA graphs hold the addresses of the weights, which LLM mode switches.
Imports torch and transformers.
"""

from __future__ import annotations

import gc
from collections.abc import Sequence
from typing import Any

import torch
from transformers import ContinuousBatchingConfig, GenerationConfig
from transformers.utils.import_utils import is_flash_attn_2_available

_RESULT_SECONDS = 1.0
_STOP_SECONDS = 30.0
_CPU_BLOCKS = 32  # of 256 tokens; on a GPU from what memory is free
_CPU_BATCH_TOKENS = 512
_MEMORY_SHARE = 0.6  # of a GPU; the encoder needs the rest
_FEWEST_ROWS = 4096


class _Table(torch.nn.Module):
    """An embedding whose ids beyond the vocabulary are rows of `rows`, `(capacity, hidden)`."""

    def __init__(self, embedding: Any) -> None:
        super().__init__()
        self.embedding = embedding
        self.vocabulary = embedding.num_embeddings
        self.rows = embedding.weight.new_zeros((0, embedding.embedding_dim))

    @property
    def weight(self) -> torch.Tensor:
        """What transformers asks an embedding for."""
        weight: torch.Tensor = self.embedding.weight
        return weight

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        own = ids >= self.vocabulary
        written = self.embedding(ids.masked_fill(own, 0))
        heard = self.rows[(ids - self.vocabulary).clamp(0, len(self.rows) - 1)]
        return torch.where(own[..., None], heard, written)


class ContinuousDecoder:
    """Greedy generation for a language model of transformers."""

    def __init__(self, llm: Any, end_ids: Sequence[int], pad_id: int) -> None:
        self._llm = llm
        self._ends = list(end_ids)
        self._pad = pad_id
        self._table = _Table(llm.model.embed_tokens)
        # Every call ends with a collection of garbage: 0.7 s over all that NeMo has imported, which stays.
        gc.collect()
        gc.freeze()

    def generate(
        self, rows: Sequence[torch.Tensor], limits: Sequence[int]
    ) -> list[tuple[list[int], list[float]]]:
        """Per row of embeddings `(num_tokens, hidden)`: its new ids, the end included, and the
        log-probability of each.

        Raises:
            RuntimeError: generation failed, also for want of memory.
        """
        first = self._fill(rows)
        self._llm.model.embed_tokens = self._table
        try:
            with self._llm.continuous_batching_context_manager(
                generation_config=self._generation(max(limits)),
                continuous_batching_config=self._batching(),
                timeout=_STOP_SECONDS,
                persistent_manager=True,
                warmup=rows[0].is_cuda,
            ) as manager:
                for i, limit in enumerate(limits):
                    ids = list(range(first[i], first[i] + len(rows[i])))
                    manager.add_request(ids, request_id=str(i), max_new_tokens=limit, eos_token_id=self._ends)
                found = self._collect(manager, len(rows))
        except BaseException:
            self.close()
            raise
        finally:
            self._llm.model.embed_tokens = self._table.embedding
        return [found[str(i)] for i in range(len(rows))]

    def close(self) -> None:
        """Free the cache."""
        manager = getattr(self._llm, "_cached_continuous_batching_manager", None)
        self._llm.destroy_cached_continuous_batching_manager()
        if manager is not None:  # else the traceback of what ended it keeps it, and its cache
            manager.background_thread_status.fatal_error = None

    def _fill(self, rows: Sequence[torch.Tensor]) -> list[int]:
        """Put the rows into the table; returns the first id of each."""
        needed = sum(len(r) for r in rows)
        if needed > len(self._table.rows):
            # Graphs hold the table's address: they go with it.
            self.close()
            capacity = max(_FEWEST_ROWS, 1 << (needed - 1).bit_length())
            self._table.rows = self._table.weight.new_zeros((capacity, self._table.weight.shape[1]))
        with torch.no_grad():
            self._table.rows[:needed] = torch.cat(list(rows))
        if self._table.rows.is_cuda:  # generation has a stream of its own, which would not wait
            torch.cuda.current_stream().synchronize()
        first, ids = self._table.vocabulary, []
        for row in rows:
            ids.append(first)
            first += len(row)
        return ids

    def _collect(self, manager: Any, count: int) -> dict[str, tuple[list[int], list[float]]]:
        found: dict[str, tuple[list[int], list[float]]] = {}
        while len(found) < count:
            result = manager.get_result(timeout=_RESULT_SECONDS)
            if result is None:
                if not manager.is_running():
                    fatal = manager.background_thread_status.fatal_error
                    raise RuntimeError(f"continuous generation ended early: {fatal}")
            elif result.error is not None:
                raise RuntimeError(f"continuous generation failed: {result.error}")
            elif result.is_finished():
                found[result.request_id] = (result.generated_tokens, result.logprobs)
        return found

    def _generation(self, most: int) -> Any:
        return GenerationConfig(  # type: ignore[no-untyped-call]
            max_new_tokens=most, eos_token_id=self._ends, pad_token_id=self._pad, do_sample=False
        )

    def _batching(self) -> Any:
        gpu = self._table.weight.is_cuda
        return ContinuousBatchingConfig(
            allow_block_sharing=False,
            return_logprobs=True,
            num_blocks=None if gpu else _CPU_BLOCKS,
            max_batch_tokens=None if gpu else _CPU_BATCH_TOKENS,
            max_memory_percent=_MEMORY_SHARE * (_own_share() if gpu else 1.0),
            # Never kernels from the hub: only what is installed.
            auto_switch_to_flash=gpu and is_flash_attn_2_available(),
        )


def _own_share() -> float:
    """How much of the device's free memory this process may take: transformers goes by all of it, where
    `memory.gauge` has set a limit."""
    free, total = torch.cuda.mem_get_info()
    left = total * torch.cuda.get_per_process_memory_fraction() - torch.cuda.memory_reserved()
    return min(1.0, max(0.0, left) / max(1, free))
