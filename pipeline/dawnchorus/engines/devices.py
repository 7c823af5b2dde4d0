"""Whether an engine can use the device that it is told to use, here. Loads no model.

A GPU that is there may still be no use: no driver, one older than CUDA wants, a package built for CPUs.
"""

from __future__ import annotations

import importlib
import re

from dawnchorus.errors import EngineUnavailable
from dawnchorus.records import Hypothesis

ADVICE = (
    "Check nvidia-smi: the NVIDIA driver may be missing or too old, the container may have no GPU "
    "(docker run --gpus all), or the GPU be full. Or use the CPU: device=cpu."
)
_CUBLAS = (
    "CTranslate2 wants CUDA 12's: pip install nvidia-cublas-cu12, with its lib folder in "
    "LD_LIBRARY_PATH. Or use the CPU: device=cpu."
)
"""It looks for them when it computes for the first time, not when it loads a model."""
_OF_A_GPU = re.compile(r"cuda|cublas|cudnn|nvidia", re.IGNORECASE)


def require(engine: str, device: str) -> None:
    """Nothing, if `engine` can use `device` on this machine.

    Raises:
        EngineUnavailable: it cannot, or the package that would tell cannot be imported.
    """
    if device != "cuda" or engine == "fake":
        return
    try:
        usable, package = _cuda(engine)
    except (ImportError, OSError, RuntimeError) as e:
        raise EngineUnavailable(f"No GPU can be asked for: {e}.", ADVICE) from e
    if not usable:
        raise EngineUnavailable(f"The device is cuda, but {package} sees no GPU that it can use.", ADVICE)


def fix_of(error: Exception, otherwise: str) -> str:
    """How to mend what the loading of a model raised: a fault of the GPU is no fault of the model."""
    if "libcublas.so.12" in str(error):
        return _CUBLAS
    return ADVICE if _OF_A_GPU.search(str(error)) else otherwise


def prove(first: Hypothesis) -> None:
    """Nothing, if a loaded model had the memory to transcribe its first second.

    Raises:
        EngineUnavailable: it had not: the GPU may be full already. An archive would fail chunk by chunk.
    """
    if first.error is not None and first.error.transient:
        raise EngineUnavailable(f"The model is loaded and does not run: {first.error.message}", ADVICE)


def _cuda(engine: str) -> tuple[bool, str]:
    if engine == "whisper":
        return importlib.import_module("ctranslate2").get_cuda_device_count() > 0, "CTranslate2"
    return bool(importlib.import_module("torch").cuda.is_available()), "PyTorch"
