"""The benches that need hardware run here on what there is: they must work on the day it comes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

TESTS = Path(__file__).parent


@pytest.mark.slow
def test_the_bench_of_salm_measures_every_way() -> None:
    pytest.importorskip("nemo")
    words = ["--tiny", "--batches", "2,3", "--seconds", "2", "--repeat", "1"]
    done = subprocess.run(
        [sys.executable, str(TESTS / "bench" / "salm.py"), *words],
        capture_output=True,
        text=True,
        timeout=280,
        env={**os.environ, "PYTHONPATH": str(TESTS)},
    )
    assert done.returncode == 0, done.stderr
    rows = [line.split("|")[1:4] for line in done.stdout.splitlines() if line.startswith("| sa")]
    rows += [line.split("|")[1:4] for line in done.stdout.splitlines() if line.startswith("| SALM")]
    assert {(name.strip(), int(batch)) for name, batch, _ in rows} == {
        (name, batch)
        for name in ("SALM.generate", "salm, eager", "salm, static", "salm, continuous")
        for batch in (2, 3)
    }
    assert all(float(seconds) > 0 for _, _, seconds in rows)


def test_the_bound_is_that_of_the_architecture() -> None:
    """Counted by hand: an encoder of 0.81 and a language model of 1.72 billion parameters."""
    sys.path.insert(0, str(TESTS / "bench"))
    try:
        import roofline
    finally:
        sys.path.pop(0)
    # Two operations a parameter and frame, and what attention and subsampling add (7 % and little).
    assert roofline.encoder_flops(30) / 30 / roofline.FRAMES_PER_SECOND == pytest.approx(2 * 0.813e9, rel=0.1)
    h100 = roofline.peak_of("NVIDIA H100 80GB HBM3")
    assert h100 is not None
    # One row reads 3.44 GB of weights for every token.
    assert roofline.step_seconds(h100, 1, 0) == pytest.approx(3.44e9 / 3.35e12, rel=0.01)
    assert roofline.rtfx(h100, 1, 30) < roofline.rtfx(h100, 32, 30) < roofline.rtfx(h100, 512, 30) < 17_000
    assert roofline.peak_of("Some other GPU") is None
