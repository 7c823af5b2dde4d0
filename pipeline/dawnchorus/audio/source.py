"""What the three readers share: the facts of a stream, the protocol of a source, frames as float32.

Runs inside the sandboxed child only.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from dawnchorus.audio.shape import Piece


@dataclass(frozen=True, slots=True)
class Facts:
    """What a file says of itself. `claimed_seconds` is None where it says nothing; `num_channels` and
    `rate` (Hz) are those of the first decoded samples."""

    decoder: str
    format: str
    codec: str
    num_channels: int
    rate: int
    claimed_seconds: float | None


class Source(Protocol):
    """One opened file. `flags` are final when the pieces have ended."""

    facts: Facts
    flags: set[str]

    def pieces(self) -> Iterator[Piece]:
        """Audio and gaps in time order. Iterate once.

        Raises:
            Terminal, OSError, MemoryError: nothing further can be read.
        """
        ...

    def close(self) -> None:
        """Free the library's part. The pieces must not be iterated any more."""
        ...


def as_float(frame: Any) -> NDArray[np.float32]:
    """A PyAV AudioFrame as float32, full scale 1.0, shape `(num_samples, num_channels)`."""
    x: NDArray[Any] = frame.to_ndarray()
    x = x.T if frame.format.is_planar else x.reshape(-1, frame.layout.nb_channels)
    if x.dtype == np.uint8:
        return (x.astype(np.float32) - np.float32(128)) / np.float32(128)
    if x.dtype.kind == "i":
        return x.astype(np.float32) * np.float32(0.5 ** (8 * x.dtype.itemsize - 1))
    return x.astype(np.float32, copy=False)
