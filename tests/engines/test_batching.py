from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dawnchorus.engines.batching import counted, is_out_of_memory, pack, run_in_batches

SIZES = st.lists(st.floats(0, 30), max_size=40)


def run(sizes: list[float], budget: float, memory: float) -> tuple[list[str], list[int]]:
    """Results and batch sizes of a function that runs out of memory above `memory` padded seconds."""
    batches: list[int] = []

    def fn(batch: list[float]) -> list[str]:
        if max(batch) * len(batch) > memory:
            raise MemoryError
        batches.append(len(batch))
        return [f"{x}" for x in batch]

    results = run_in_batches(
        sizes, sizes, budget, fn, lambda e: isinstance(e, MemoryError), lambda x, _: f"too big {x}"
    )
    return results, batches


@given(SIZES, st.floats(1, 200))
def test_pack_covers_every_item_once_within_the_budget(sizes: list[float], budget: float) -> None:
    batches = pack(sizes, budget)
    assert sorted(i for b in batches for i in b) == list(range(len(sizes)))
    for batch in batches:
        assert len(batch) == 1 or max(sizes[i] for i in batch) * len(batch) <= budget + 1e-9


@given(SIZES, st.floats(1, 200), st.floats(1, 200))
def test_results_keep_their_order_whatever_the_memory(
    sizes: list[float], budget: float, memory: float
) -> None:
    results, _ = run(sizes, budget, memory)
    assert results == [f"{x}" if x <= memory else f"too big {x}" for x in sizes]


def test_out_of_memory_halves_the_batch() -> None:
    assert run([10.0] * 8, 80, 25)[1] == [2, 2, 2, 2]


@given(SIZES, st.floats(1, 200), st.floats(30, 200))
def test_batches_are_counted(sizes: list[float], budget: float, memory: float) -> None:
    with counted() as seen:
        _, batches = run(sizes, budget, memory)
    assert seen.num_items == batches
    assert seen.content == pytest.approx(sum(sizes))
    assert -1e-6 <= seen.padding <= sum(sizes) * max(batches, default=0) + 30 * len(sizes)


def test_a_halved_batch_counts_once_it_ran() -> None:
    with counted() as seen:
        run([10.0] * 8, 80, 25)
    assert (seen.num_items, seen.content, seen.padding, seen.num_halved) == ([2] * 4, 80.0, 0.0, 3)


def test_other_errors_are_not_swallowed() -> None:
    def fn(batch: list[int]) -> list[int]:
        raise ValueError("broken")

    with pytest.raises(ValueError, match="broken"):
        run_in_batches([1, 2], [1, 2], 10, fn, lambda e: isinstance(e, MemoryError), lambda x, _: x)


def test_a_short_answer_is_an_error() -> None:
    with pytest.raises(ValueError, match="1 results for a batch of 2"):
        run_in_batches([1, 2], [1, 2], 10, lambda b: b[:1], lambda e: False, lambda x, _: x)


@pytest.mark.parametrize(
    ("e", "found"),
    [
        (RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB"), True),
        (RuntimeError("CUDA failed with error out of memory"), True),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes."), True),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling cublasCreate(handle)"), True),
        (MemoryError(), True),
        (MemoryError("Unable to allocate 8.00 PiB for an array"), True),
        (RuntimeError("CUDA error: an illegal memory access was encountered"), False),
        (ValueError("memory"), False),
    ],
)
def test_what_says_that_memory_did_not_suffice(e: Exception, found: bool) -> None:
    assert is_out_of_memory(e) is found
