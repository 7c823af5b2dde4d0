"""Audio files become int16 blocks at the engine's rate, decoded in a process that may die.

`Decoder.open` returns a `Stream`; iterating it yields `Block`s in time order. Every decoder library runs
in one child process with its own limits (`child.py`), which is replaced when it crashes, stalls or grows;
here are the clock, the restarts and the verdicts. Knows nothing of storage, speech or tables.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Any

from dawnchorus.audio import wire
from dawnchorus.audio.process import Child, Lost
from dawnchorus.audio.wire import Block
from dawnchorus.errors import DataError, Terminal, Transient
from dawnchorus.records import Failure, Seconds

if TYPE_CHECKING:
    from dawnchorus.config import AudioConfig


@dataclass(frozen=True, slots=True)
class AudioInfo:
    """Facts of a stream, known before its first block.

    `decoder` names everything that can change samples (it enters the decode_id); `format` and `codec` are
    for people; `num_channels` and `source_rate` (Hz) are the source's; `claimed_seconds` is the
    container's word on its length, never trusted; `channels` are the output channels in order: `(None,)`
    for the mix, `(0, 1, ...)` for separate ones, `(i,)` for one by index.
    """

    decoder: str
    format: str
    codec: str
    num_channels: int
    source_rate: int
    claimed_seconds: Seconds | None
    channels: tuple[int | None, ...]


class Decoder:
    """Owns the child process; decodes one file at a time. Not for use by several threads."""

    def __init__(self, config: AudioConfig) -> None:
        self._config = config
        self._child: Child | None = None
        self._active: Stream | None = None

    def __enter__(self) -> Decoder:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, e: BaseException | None, t: TracebackType | None
    ) -> None:
        self.close()

    def open(self, path: str, sampling_rate: int) -> Stream:
        """Begin to decode a local file; blocks come at `sampling_rate` Hz. Ends the stream opened before.

        Raises (before the first block, when nothing can be decoded):
            Terminal: `empty_file`, `not_audio`, `no_audio_track`, `no_samples`, `is_directory`,
                `non_finite`, `bad_channel`, `memory`, `crash`, `timeout`, `too_long`.
            Transient: `io`, `killed`, `decoder_unavailable`.
        """
        if self._active is not None:
            self._active.close()
        request = {
            "path": os.path.abspath(path),
            "sampling_rate": sampling_rate,
            "channels": self._config.channels,
            "max_samples": int(self._config.max_seconds * sampling_rate),
        }
        self._active = Stream(self, request)
        return self._active

    @property
    def pid(self) -> int | None:
        """Process id of the child, for those who watch its memory."""
        return None if self._child is None else self._child.pid

    def close(self) -> None:
        """End the child process. Safe to call twice; `open` starts another."""
        if self._active is not None:
            self._active.close()
        self.end_child()

    def child(self) -> Child:
        """The child process, started if there is none or the last one has served its time."""
        if self._child is not None and self._child.worn:
            self.end_child()
        if self._child is None:
            self._child = Child(self._config.max_memory_bytes, self._config.stall_seconds)
        return self._child

    def end_child(self) -> None:
        """Kill the child process, if there is one."""
        if self._child is not None:
            self._child.kill()
            self._child = None


class Stream:
    """One file being decoded. Iterate once; then `flags` and `failure` are final.

    `failure` is a fault after some audio was delivered: what was delivered stays valid.
    """

    def __init__(self, decoder: Decoder, request: dict[str, Any]) -> None:
        self.flags: tuple[str, ...] = ()
        self.failure: Failure | None = None
        self._decoder = decoder
        self._open = True
        self._messages = self._decode_twice(request)
        first = next(self._messages)
        if not isinstance(first, AudioInfo):
            raise TypeError("blocks before facts")
        self.info = first

    def __iter__(self) -> Iterator[Block]:
        try:
            for message in self._messages:
                if isinstance(message, Block):
                    yield message
        except DataError as e:
            self.failure = e.failure()
        finally:
            self.close()

    def close(self) -> None:
        """Stop decoding; what is left of the file is not read."""
        if self._open:
            self._open = False
            self._decoder.end_child()

    def _decode_twice(self, request: dict[str, Any]) -> Iterator[AudioInfo | Block]:
        """Facts and blocks. When the child is lost, a new one decodes from the start and what was already
        delivered is skipped: decoding is deterministic. What loses two children is to blame."""
        delivered = 0
        for last_try in (False, True):
            try:
                for n, message in enumerate(self._decode(request)):
                    if n >= delivered:
                        delivered = n + 1
                        yield message
                return
            except Lost as e:
                self._decoder.end_child()
                if last_try:
                    self._open = False
                    raise e.verdict from None

    def _decode(self, request: dict[str, Any]) -> Iterator[AudioInfo | Block]:
        child = self._decoder.child()
        child.ask(request)
        while True:
            tag, payload = child.receive()
            if tag == wire.BLOCK:
                yield wire.unpack_block(payload)
            elif tag == wire.INFO:
                facts = json.loads(payload)
                yield AudioInfo(**{**facts, "channels": tuple(facts["channels"])})
            elif tag == wire.END:
                end = json.loads(payload)
                self._open = False
                self.flags = tuple(end["flags"])
                child.note(end["memory_bytes"])
                if end["failure"] is not None:
                    kind, message, transient = end["failure"]
                    if kind == "memory":
                        self._decoder.end_child()
                    raise (Transient if transient else Terminal)(kind, message)
                return
