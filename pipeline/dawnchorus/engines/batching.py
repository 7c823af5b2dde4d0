"""Packing of one engine call: length sort, a budget of padded size, splitting on out-of-memory.

Pure bookkeeping around a function that processes one batch; knows no model and no audio.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TypeVar

from dawnchorus.records import Counted

T = TypeVar("T")
R = TypeVar("R")

_counting: ContextVar[Counted | None] = ContextVar("counting", default=None)


@contextmanager
def counted() -> Iterator[Counted]:
    """Count the batches that `run_in_batches` runs inside, in this thread."""
    seen = Counted()
    token = _counting.set(seen)
    try:
        yield seen
    finally:
        _counting.reset(token)


def pack(sizes: Sequence[float], budget: float) -> list[list[int]]:
    """Indices grouped into batches, longest first, each within `budget` once padded to its longest.

    A batch of n items whose longest has size s costs n * s. An item larger than the budget travels
    alone. Longest first: a batch that does not fit in memory shows at once, not after an hour.
    """
    batches: list[list[int]] = []
    room = 0
    for index in sorted(range(len(sizes)), key=lambda i: (-sizes[i], i)):
        if room == 0:
            batches.append([])
            size = sizes[index]
            room = max(1, int(min(budget / size, len(sizes)))) if size > 0 else len(sizes)
        batches[-1].append(index)
        room -= 1
    return batches


def is_out_of_memory(e: Exception) -> bool:
    """Whether an error says that memory did not suffice; torch and CTranslate2 say it by RuntimeErrors.

    cuBLAS and cuDNN, which take memory beside torch, say only STATUS_ALLOC_FAILED. After an illegal memory
    access a process can use its GPU no more: no batch is too small for that."""
    said = str(e).lower()
    short = "memory" in said and "memory access" not in said
    return isinstance(e, MemoryError) or (
        isinstance(e, RuntimeError) and (short or "status_alloc_failed" in said)
    )


def run_in_batches(
    items: Sequence[T],
    sizes: Sequence[float],
    budget: float,
    fn: Callable[[list[T]], list[R]],
    is_oom: Callable[[Exception], bool],
    alone: Callable[[T, Exception], R],
    contents: Sequence[float] | None = None,
) -> list[R]:
    """Results of `fn` over `items`, in the order of `items`.

    `fn` takes one batch and returns one result per item. When it raises what `is_oom` recognises, the
    batch is halved and both halves are run; an item that runs out of memory alone becomes
    `alone(item, error)`. `contents` says how much of each size is not padding already, for `counted`.

    Raises:
        Exception: whatever else `fn` raises; ValueError: `fn` returned another number of results.
    """
    results: dict[int, R] = {}
    seen = _counting.get() or Counted()
    contents = sizes if contents is None else contents
    pending = pack(sizes, budget)[::-1]
    while pending:
        batch = pending.pop()
        try:
            outputs = fn([items[i] for i in batch])
        except Exception as e:
            if not is_oom(e):
                raise
            if len(batch) == 1:
                results[batch[0]] = alone(items[batch[0]], e)
            else:
                seen.num_halved += 1
                middle = len(batch) // 2
                pending += [batch[middle:], batch[:middle]]
            continue
        if len(outputs) != len(batch):
            raise ValueError(f"{len(outputs)} results for a batch of {len(batch)}")
        results.update(zip(batch, outputs, strict=True))
        content = sum(contents[i] for i in batch)
        seen.num_items.append(len(batch))
        seen.content += content
        seen.padding += len(batch) * max(sizes[i] for i in batch) - content
    return [results[i] for i in range(len(items))]
