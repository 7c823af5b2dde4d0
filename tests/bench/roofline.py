"""What a GPU could do at most with Canary-Qwen-2.5B: the physical bound that `salm.py` compares with.

Counts of multiplications and of bytes follow from the architecture (FastConformer of 32 layers and
1,024 wide before a Qwen3-1.7B); peaks are of the makers' data sheets. Nobody reaches it: half of it is good.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

FRAMES_PER_SECOND = 12.5
PROMPT_TOKENS = 15
TOKENS_PER_SECOND = 3.2
"""Of English speech, by Qwen's tokenizer."""


@dataclass(frozen=True)
class Peak:
    """Dense bfloat16 FLOP/s, and bytes/s of its memory."""

    flops: float
    bandwidth: float


PEAKS = {
    "H200": Peak(989e12, 4.8e12),
    "H100": Peak(989e12, 3.35e12),
    "A100": Peak(312e12, 2.04e12),
    "L40S": Peak(362e12, 0.864e12),
    "L4": Peak(121e12, 0.30e12),
}

_WIDTH, _LAYERS, _KERNEL, _CHANNELS, _MELS = 1024, 32, 9, 256, 128
_HIDDEN, _LLM_LAYERS, _FEED_FORWARD, _KV, _VOCABULARY = 2048, 28, 6144, 1024, 151_936
_LAYER_WEIGHTS = 2 * _HIDDEN * _HIDDEN + 2 * _HIDDEN * _KV + 3 * _HIDDEN * _FEED_FORWARD
_LLM_WEIGHTS = _LLM_LAYERS * _LAYER_WEIGHTS
_HEAD_WEIGHTS = _VOCABULARY * _HIDDEN
_CACHE_BYTES = 2 * _LLM_LAYERS * _KV * 2
_BYTES = 2


def encoder_flops(seconds: float) -> float:
    """Of one clip: feed-forward twice, attention, convolution, subsampling, projection."""
    frames = FRAMES_PER_SECOND * seconds
    linear = 2 * 2 * _WIDTH * 4 * _WIDTH + 4 * _WIDTH**2 + 2 * _WIDTH**2 + _WIDTH**2 + _KERNEL * _WIDTH
    attention = 4 * frames * _WIDTH
    subsampling = sum(
        100 / 2**n * _MELS / 2**n * _CHANNELS * (9 + (_CHANNELS if n > 1 else 0)) for n in (1, 2, 3)
    )
    subsampling += FRAMES_PER_SECOND * _MELS / 8 * _CHANNELS * _WIDTH
    per_frame = _LAYERS * (linear + attention) + _WIDTH * _HIDDEN
    return 2 * (frames * per_frame + seconds * subsampling)


def prefill_flops(seconds: float) -> float:
    """Of one prompt with its audio; logits of the last position only."""
    tokens = FRAMES_PER_SECOND * seconds + PROMPT_TOKENS
    attention = 2 * tokens * _HIDDEN * _LLM_LAYERS
    return tokens * (2 * _LLM_WEIGHTS + attention)


def step_seconds(peak: Peak, batch: int, context: float) -> float:
    """One token of every row of a batch: what is read, or what is multiplied, whichever is slower."""
    read = _BYTES * (_LLM_WEIGHTS + _HEAD_WEIGHTS) + batch * context * _CACHE_BYTES
    return max(read / peak.bandwidth, batch * 2 * (_LLM_WEIGHTS + _HEAD_WEIGHTS) / peak.flops)


def rtfx(peak: Peak, batch: int, seconds: float, tokens_per_second: float = TOKENS_PER_SECOND) -> float:
    """Audio seconds per second for chunks of `seconds`, at every peak at once."""
    tokens = math.ceil(tokens_per_second * seconds)
    context = FRAMES_PER_SECOND * seconds + PROMPT_TOKENS + tokens / 2
    computing = batch * (encoder_flops(seconds) + prefill_flops(seconds)) / peak.flops
    return batch * seconds / (computing + tokens * step_seconds(peak, batch, context))


def peak_of(name: str) -> Peak | None:
    """The peaks of a GPU by the name that it gives itself; None: unknown."""
    return next((peak for key, peak in PEAKS.items() if key in name.replace("-", " ").split()), None)
