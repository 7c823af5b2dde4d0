"""How NeMo is made to load models from anywhere, safely, quietly, with limits that no neighbour changes.

Imports NeMo inside its functions only.
"""

from __future__ import annotations

import hashlib
import importlib
import logging
import os
from pathlib import Path
from typing import Any

from dawnchorus import storage
from dawnchorus.engines.salm_source import alone, cache_folder
from dawnchorus.errors import DataError, EngineUnavailable

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


def staged(url: str) -> Path:
    """A `.nemo` file of a bucket, fetched once per machine and version, by one process at a time.

    Raises:
        EngineUnavailable: it is not there, or cannot be fetched.
    """
    place = storage.redact(url)
    try:
        whole = storage.absolute(url)
        listed = [f for f in storage.list_files(storage.parent(whole), ".nemo") if f.url == whole]
        if not listed:
            raise EngineUnavailable(f"There is no {place}.", "Check engine.model.")
        known = f"{storage.canonical_uri(whole)}\n{listed[0].version}"
        folder = cache_folder(None) / hashlib.sha256(known.encode()).hexdigest()[:16]
        folder.mkdir(parents=True, exist_ok=True)
        target = folder / storage.name_of(whole)
        with alone(folder):
            if not target.is_file():
                with storage.fetch(whole, str(folder), _MOST_BYTES) as fetched:
                    os.chmod(fetched.path, 0o644)  # other users of this machine read the cache, too
                    os.replace(fetched.path, target)
    except DataError as e:
        raise EngineUnavailable(f"{place} cannot be fetched: {e.message}", "Try again.") from e
    return target
