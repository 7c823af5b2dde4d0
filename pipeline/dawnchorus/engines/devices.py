"""Whether an engine can use the device that it is told to use, here. Loads no model.

A GPU that is there may still be no use: no driver, one older than CUDA wants, a package built for CPUs.
"""

from __future__ import annotations

import importlib
import re

from dawnchorus.errors import EngineUnavailable

ADVICE = (
    "Check nvidia-smi: the NVIDIA driver may be missing or too old, or the container has no GPU "
    "(docker run --gpus all). Or use the CPU: device=cpu."
)
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
    return ADVICE if _OF_A_GPU.search(str(error)) else otherwise


def _cuda(engine: str) -> tuple[bool, str]:
    if engine == "whisper":
        return importlib.import_module("ctranslate2").get_cuda_device_count() > 0, "CTranslate2"
    return bool(importlib.import_module("torch").cuda.is_available()), "PyTorch"
