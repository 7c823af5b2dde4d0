"""What travels between the decoding child and its parent: length-prefixed messages over two pipes.

A message is a tag byte, a little-endian uint32 length, and the payload. Requests, facts and ends are
JSON; a block is its damaged spans and raw int16 samples. Nothing is ever unpickled.
"""

from __future__ import annotations

import json
import struct
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

HEADER = struct.Struct("<cI")
_BLOCK = struct.Struct("<III")

HELLO = b"H"
"""Child to parent, once: the libraries are imported, the child listens."""
REQUEST = b"R"
"""Parent to child: decode this file."""
INFO = b"I"
"""Child to parent: facts of the stream; always before its first block."""
BLOCK = b"B"
"""Child to parent: samples."""
TICK = b"T"
"""Child to parent: audio is being decoded, but none is fit to be delivered yet."""
END = b"E"
"""Child to parent: flags, and the failure if there was one."""

MAX_MESSAGE_BYTES = 1 << 26
"""No honest message comes near this; a longer one means the child can no longer be trusted."""


class Writable(Protocol):
    """The one method of a binary stream that a message needs."""

    def write(self, data: Any, /) -> Any: ...


@dataclass(frozen=True, slots=True)
class Block:
    """About ten seconds of audio at the engine's rate.

    `samples` has shape `(num_channels_out, num_samples)`. `damaged` are sample spans `[start, end)`,
    counted from the start of the stream, inside this block, that could not be decoded and are silence.
    """

    samples: NDArray[np.int16]
    damaged: tuple[tuple[int, int], ...] = ()


def send(stream: Writable, tag: bytes, payload: bytes = b"") -> None:
    """Write one message."""
    stream.write(HEADER.pack(tag, len(payload)) + payload)


def send_json(stream: Writable, tag: bytes, value: Any) -> None:
    """Write one message with a JSON payload."""
    send(stream, tag, json.dumps(value).encode())


def pack_block(block: Block) -> bytes:
    """The payload of a block."""
    num_channels, num_samples = block.samples.shape
    spans = np.asarray(block.damaged, dtype="<i8").reshape(-1, 2)
    head = _BLOCK.pack(num_channels, num_samples, len(spans))
    return head + spans.tobytes() + np.ascontiguousarray(block.samples, dtype="<i2").tobytes()


def unpack_block(payload: bytearray) -> Block:
    """A block from its payload; the samples share the payload's memory.

    Raises:
        ValueError: the sizes do not add up.
    """
    num_channels, num_samples, num_spans = _BLOCK.unpack_from(payload)
    spans = np.frombuffer(payload, "<i8", 2 * num_spans, _BLOCK.size).reshape(-1, 2).tolist()
    offset = _BLOCK.size + 16 * num_spans
    samples = np.frombuffer(payload, "<i2", num_channels * num_samples, offset)
    return Block(samples.reshape(num_channels, num_samples), tuple((a, b) for a, b in spans))
