"""Canary-Qwen's architecture on this GPU: `make bench-salm`, or `--tiny` to try the script on a CPU.

Builds the whole model with random weights (speed and memory need no others; 5 GB on the disk, 10 GB of
memory for two minutes), and transcribes noise by every way there is: NeMo's `SALM.generate` on the whole
batch, as NeMo's own evaluation script calls it, and the engine's parts with each decoder. Random weights
never end a text: every row writes `--tokens-per-second` times its seconds, as English speech would.

Prints a table in Markdown, with the share of the physical bound where the GPU is known (`roofline.py`).
Paste it with date and hardware into RESULTS.md.
"""

from __future__ import annotations

import argparse
import gc
import math
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import roofline
import torch
from nemo.collections.speechlm2.models import SALM
from transformers import GenerationConfig

from dawnchorus.config import EngineConfig
from dawnchorus.engines import salm_model
from dawnchorus.engines.base import Waveform
from dawnchorus.engines.batching import is_out_of_memory
from dawnchorus.engines.salm import SalmEngine
from dawnchorus.engines.salm_generate import generate
from tiny_salm.build import TRANSCRIBE, build

RATE = 16_000
# config.json of nvidia/canary-qwen-2.5b and of Qwen/Qwen3-1.7B.
FULL = {
    "hidden": 2048,
    "layers": 28,
    "heads": 16,
    "kv_heads": 8,
    "head_dim": 128,
    "feed_forward": 6144,
    "rows": 151_936,
    "encoder_width": 1024,
    "encoder_layers": 32,
    "encoder_heads": 8,
    "encoder_channels": 256,
    "lora_rank": 128,
    "lora_b": 0.01,
    "initializer_range": 0.02,
    "dtype": "bfloat16",
}
DECODERS = ("eager", "static", "continuous")
Way = Callable[[Sequence[Waveform], int], None]


def model_of(folder: Path, tiny: bool) -> Path:
    """A bundle with random weights, of the real sizes or of tiny ones."""
    return build(folder, **({} if tiny else FULL))


def by_nemo(folder: Path, device: str, dtype: str) -> Way:
    """`SALM.generate` over the batch as one, the adapter apart, as NeMo's evaluation script has it."""
    model = SALM.from_pretrained(str(folder)).eval().to(device=device, dtype=getattr(torch, dtype))

    def transcribe(clips: Sequence[Waveform], limit: int) -> None:
        model.generate(
            prompts=[[{"role": "user", "content": TRANSCRIBE}]] * len(clips),
            audios=torch.from_numpy(np.stack(clips)).to(device),
            audio_lens=torch.tensor([len(c) for c in clips], device=device),
            generation_config=GenerationConfig(
                max_new_tokens=limit,
                min_new_tokens=limit,
                do_sample=False,
                pad_token_id=model.text_pad_id,
                eos_token_id=model.text_eos_id,
            ),
        )

    return transcribe


def by_engine(folder: Path, device: str, dtype: str, decoder: str) -> Way:
    """The engine's parts, encoder in quarters of the batch, without its second look at doubtful chunks."""
    config = EngineConfig(name="salm", model=str(folder), device=device, dtype=dtype, warm_up=False)
    engine = SalmEngine(config)
    engine.load()
    model = engine._loaded()

    def transcribe(clips: Sequence[Waveform], limit: int) -> None:
        size = max(1, len(clips) // 4)
        quarters = [clips[i : i + size] for i in range(0, len(clips), size)]
        frames = [f for quarter in quarters for f in model.encode(quarter)]
        rows = [torch.cat([engine._before, f, engine._after]) for f in frames]
        generate(model, rows, [limit] * len(rows), decoder)

    return transcribe


def measured(way: Way, clips: Sequence[Waveform], limit: int, repeat: int) -> tuple[float, float] | None:
    """Median seconds of a batch, and the most GiB held; None where it does not fit. One call goes before."""
    cuda = torch.cuda.is_available()
    seconds = []
    try:
        for n in range(repeat + 1):
            if cuda:
                torch.cuda.reset_peak_memory_stats()
                torch.cuda.synchronize()
            began = time.perf_counter()
            way(clips, limit)
            if cuda:
                torch.cuda.synchronize()
            if n:
                seconds.append(time.perf_counter() - began)
    except Exception as e:
        if not is_out_of_memory(e):
            raise
        return None
    return statistics.median(seconds), torch.cuda.max_memory_allocated() / 2**30 if cuda else math.nan


def row(name: str, batch: int, seconds: float, found: tuple[float, float] | None, bound: float | None) -> str:
    """One line of the table."""
    if found is None:
        return f"| {name} | {batch} | out of memory | | | |"
    wall, held = found
    rtfx = batch * seconds / wall
    share = "" if bound is None else f"{rtfx / bound:.0%} of {bound:,.0f}"
    memory = "" if math.isnan(held) else f"{held:.1f}"
    return f"| {name} | {batch} | {wall:.2f} | {rtfx:,.0f} | {share} | {memory} |"


def main() -> None:
    """Parse and run."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--tiny", action="store_true", help="a tiny model in float32, whatever the device")
    parser.add_argument("--seconds", type=float, default=30.0, help="length of a chunk (default 30)")
    parser.add_argument("--batches", default="32,128,256", help="chunks at once (default 32,128,256)")
    parser.add_argument("--ways", default=",".join(("nemo", *DECODERS)), help="default: all")
    parser.add_argument("--tokens-per-second", type=float, default=roofline.TOKENS_PER_SECOND)
    parser.add_argument("--repeat", type=int, default=3, help="measured calls; the median counts (default 3)")
    asked = parser.parse_args()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    name = torch.cuda.get_device_name() if device == "cuda" else "CPU"
    peak = None if asked.tiny else roofline.peak_of(name)
    dtype = "float32" if asked.tiny else "bfloat16"
    limit = math.ceil(asked.tokens_per_second * asked.seconds)
    batches = [int(b) for b in asked.batches.split(",")]
    noise = np.random.default_rng(0).normal(0.0, 0.1, (max(batches), int(asked.seconds * RATE)))
    clips = list(noise.astype(np.float32))
    with tempfile.TemporaryDirectory(prefix="dawnchorus-bench-") as scratch, salm_model.quiet():
        folder = model_of(Path(scratch) / "model", asked.tiny)
        print(f"{name}, {dtype}, chunks of {asked.seconds:g} s, {limit} tokens each\n")
        print("| | batch | seconds | rtfx | of the bound | GiB |\n|---|---|---|---|---|---|", flush=True)
        for kind in asked.ways.split(","):
            way: Any = by_nemo(folder, device, dtype) if kind == "nemo" else None
            way = way or by_engine(folder, device, dtype, kind)
            for batch in batches:
                found = measured(way, clips[:batch], limit, asked.repeat)
                bound = peak and roofline.rtfx(peak, batch, asked.seconds, asked.tokens_per_second)
                label = "SALM.generate" if kind == "nemo" else f"salm, {kind}"
                print(row(label, batch, asked.seconds, found, bound), flush=True)
            del way
            gc.collect()
            torch.cuda.empty_cache()


if __name__ == "__main__":
    main()
