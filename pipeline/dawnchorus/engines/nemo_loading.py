"""How NeMo is made to load models from anywhere, safely, quietly, with limits that no neighbour changes.

Imports NeMo inside its functions only.
"""

from __future__ import annotations

import importlib
import logging
from typing import Any

_MOST_BYTES = 1 << 40


def up_to_the_decoders_limit(model: Any) -> Any:
    """The decoding of a Canary, whose limit would else depend on the longest clip of the batch."""
    open_dict = importlib.import_module("omegaconf").open_dict
    decoding = model.cfg.decoding
    with open_dict(decoding):
        for strategy in ("beam", "greedy"):
            if strategy in decoding:
                decoding[strategy].max_generation_delta = -1
    return decoding


def connector() -> Any:
    """NeMo's own way to open a `.nemo` file, but its weights without running their pickles."""
    torch = importlib.import_module("torch")
    base: Any = importlib.import_module("nemo.core.connectors.save_restore_connector").SaveRestoreConnector

    class DataOnly(base):  # type: ignore[misc]
        @staticmethod
        def _load_state_dict_from_disk(model_weights: Any, map_location: Any = "cpu") -> Any:
            # NeMo leaves it to the environment, where TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD may stand.
            return torch.load(model_weights, map_location=map_location, weights_only=True)

    return DataOnly()


def hush() -> None:
    """Errors only from NeMo and its telemetry (which is off): they write dozens of lines at every load."""
    for name in ("nemo_logger", "nv_one_logger"):
        logger = logging.getLogger(name)
        logger.setLevel(logging.ERROR)
        if not any(f is _errors_only for f in logger.filters):
            # transcribe() sets the level itself; a filter stays.
            logger.addFilter(_errors_only)


def _errors_only(record: logging.LogRecord) -> bool:
    return record.levelno >= logging.ERROR
