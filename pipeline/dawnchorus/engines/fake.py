"""An engine without a model, for trials and tests: its text is a hash of what it heard.

Every waveform is answered with one word, `w` + 16 hex digits of a hash of its samples, so that a test
can match committed rows with the lines of the log. It can be slow, fail, stall, run out of memory or
die on demand; the demands are in a JSON file that is read at every call, so they can change between
runs while the fingerprint stays. It knows no more of the pipeline than a real engine does.

Options (`engine.options`):
    log: path; one JSON line per waveform, {"pid", "time", "hash", "num_samples"}, appended and synced
        before its text is returned. Prompts are logged with "num_prompt_characters".
    seconds_per_audio_second: float; sleeps this long per second of audio.
    context_tokens: int; words of one prompt with its answer (default 4096).
    seconds_per_prompt: float; sleeps this long per prompt.
    script: path of a JSON object, all keys optional, the file too:
        fail_hashes, transient_hashes: these waveforms get an error that is final, or transient.
        stall_hashes, stall_seconds: these sleep first (default 3600 s).
        die_hashes: SIGKILL to this process in place of an answer.
        die_after_calls: SIGKILL in place of this process's answer number n + 1.
        die_once: path; dying creates it first, and nothing dies while it exists.
        no_load: text; loading fails with it.
        oom_above_seconds: batches of more padded seconds run out of memory.
        say: object; a prompt that holds a key is answered with that key's text, the first that fits.
"""

from __future__ import annotations

import hashlib
import json
import os
import signal
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from dawnchorus.config import EngineConfig
from dawnchorus.engines.base import Identity, Licence, Request, Waveform
from dawnchorus.engines.batching import run_in_batches
from dawnchorus.engines.checks import check, error
from dawnchorus.engines.memory import DEFAULT_SECONDS
from dawnchorus.errors import ConfigError, EngineUnavailable
from dawnchorus.records import Hypothesis, Seconds, Segment

_OPTIONS = ("log", "script", "seconds_per_audio_second", "seconds_per_prompt", "context_tokens")
_SCRIPT_KEYS = {
    *("fail_hashes", "transient_hashes", "stall_hashes", "stall_seconds"),
    *("die_hashes", "die_after_calls", "die_once", "oom_above_seconds", "say", "no_load"),
}


def waveform_hash(waveform: Waveform) -> str:
    """16 hex digits of the samples as int16, which is what they were before they became float."""
    samples = np.clip(np.rint(waveform * 32768.0), -32768, 32767).astype("<i2")
    return hashlib.blake2b(samples.tobytes(), digest_size=8).hexdigest()


def prompt_hash(prompt: str) -> str:
    """16 hex digits of a prompt, as they stand in its answer and in the log."""
    return hashlib.blake2b(prompt.encode("utf-8", "surrogatepass"), digest_size=8).hexdigest()


class FakeEngine:
    """A deterministic double of an engine; see the module's page for its options."""

    name: ClassVar[str] = "fake"
    sampling_rate: ClassVar[int] = 16_000
    max_chunk_seconds: ClassVar[Seconds] = 30.0
    licence: ClassVar[Licence] = Licence("Apache-2.0", "https://www.apache.org/licenses/LICENSE-2.0", "")

    def __init__(self, config: EngineConfig) -> None:
        """Raises ConfigError for an option that is not one of these."""
        unknown = sorted(set(config.options) - set(_OPTIONS))
        if unknown:
            raise ConfigError(
                f"The fake engine has no option {unknown[0]!r}.", f"It has: {', '.join(_OPTIONS)}."
            )
        self._log: str | None = config.options.get("log")
        self._script: str | None = config.options.get("script")
        self._pace = float(config.options.get("seconds_per_audio_second", 0.0))
        self._pace_of_prompts = float(config.options.get("seconds_per_prompt", 0.0))
        self._batch_seconds = config.batch_seconds or DEFAULT_SECONDS
        self._context_tokens = int(config.options.get("context_tokens", 4096))
        self._num_calls = 0

    @property
    def context_tokens(self) -> int:
        """Words of one prompt with its answer."""
        return self._context_tokens

    def identity(self) -> Identity:
        """Always the same: options change how it behaves, never what it hears."""
        return Identity("fake", "1", {"text": "blake2b of int16 samples"})

    def load(self) -> None:
        """Nothing to load; fails where the script says so."""
        if said := self._demands().get("no_load"):
            raise EngineUnavailable(said, "Change the script.")

    def close(self) -> None:
        """Nothing to free."""

    def num_tokens(self, text: str) -> int:
        """Tokens of `text`: its words."""
        return len(text.split())

    def transcribe(self, waveforms: Sequence[Waveform]) -> list[Hypothesis]:
        """One word per waveform; silence (all samples zero) is `empty`."""
        demands = self._demands()
        limit = float(demands.get("oom_above_seconds", float("inf")))

        def one_batch(batch: list[Waveform]) -> list[Hypothesis]:
            padded = max(len(w) for w in batch) * len(batch) / self.sampling_rate
            if padded > limit:
                raise MemoryError(f"{padded:g} padded seconds")
            return [self._hear(w, demands) for w in batch]

        return run_in_batches(
            waveforms,
            [len(w) / self.sampling_rate for w in waveforms],
            self._batch_seconds,
            one_batch,
            lambda e: isinstance(e, MemoryError),
            lambda _, e: error("out_of_memory", f"Out of memory: {e}.", transient=True),
        )

    def complete(self, requests: Sequence[Request]) -> list[Hypothesis]:
        """A deterministic answer per request: `answer` and a hash of the prompt."""
        return [self._answer(r) for r in requests]

    def _answer(self, request: Request) -> Hypothesis:
        if self.num_tokens(request.prompt) + request.max_new_tokens > self.context_tokens:
            return error("too_long", f"The prompt does not fit {self.context_tokens} tokens.", stage="answer")
        digest = prompt_hash(request.prompt)
        demands = self._demands()
        time.sleep(self._pace_of_prompts)
        if digest in demands.get("die_hashes", ()) or self._num_calls >= demands.get(
            "die_after_calls", np.inf
        ):
            _die(demands.get("die_once"))
        self._num_calls += 1
        self._write_log(digest, num_prompt_characters=len(request.prompt))
        if digest in demands.get("fail_hashes", ()):
            return error("on_demand", "The script says that this prompt fails.", stage="answer")
        if digest in demands.get("transient_hashes", ()):
            message = "The script says that this prompt fails for now."
            return error("on_demand", message, transient=True, stage="answer")
        for key, text in demands.get("say", {}).items():
            if key in request.prompt:
                return Hypothesis((Segment(0.0, 0.0, text),), num_tokens=self.num_tokens(text))
        if request.max_new_tokens < 2:
            return Hypothesis((Segment(0.0, 0.0, "answer"),), "length", num_tokens=1)
        return Hypothesis((Segment(0.0, 0.0, f"answer {digest}"),), num_tokens=2)

    def _hear(self, waveform: Waveform, demands: dict[str, Any]) -> Hypothesis:
        bad = check(waveform, self.sampling_rate, self.max_chunk_seconds)
        if bad is not None:
            return bad
        digest = waveform_hash(waveform)
        seconds = len(waveform) / self.sampling_rate
        if self._pace:
            time.sleep(self._pace * seconds)
        if digest in demands.get("stall_hashes", ()):
            time.sleep(float(demands.get("stall_seconds", 3600.0)))
        if digest in demands.get("die_hashes", ()) or self._num_calls >= demands.get(
            "die_after_calls", np.inf
        ):
            _die(demands.get("die_once"))
        self._num_calls += 1
        self._write_log(digest, num_samples=len(waveform))
        if digest in demands.get("fail_hashes", ()):
            return error("on_demand", "The script says that this waveform fails.")
        if digest in demands.get("transient_hashes", ()):
            return error("on_demand", "The script says that this waveform fails for now.", transient=True)
        if not waveform.any():
            return Hypothesis(finish_reason="empty")
        return Hypothesis((Segment(0.0, seconds, f"w{digest}", -0.1),), "stop", -0.1, num_tokens=1)

    def _demands(self) -> dict[str, Any]:
        if self._script is None or not Path(self._script).exists():
            return {}
        demands: dict[str, Any] = json.loads(Path(self._script).read_text(encoding="utf-8"))
        unknown = sorted(set(demands) - _SCRIPT_KEYS)
        if unknown:
            known = ", ".join(sorted(_SCRIPT_KEYS))
            raise ConfigError(f"{self._script} has an unknown key {unknown[0]!r}.", f"Known: {known}.")
        return demands

    def _write_log(self, digest: str, **counts: int) -> None:
        if self._log is None:
            return
        line = json.dumps({"pid": os.getpid(), "time": time.time(), "hash": digest, **counts}) + "\n"
        # One write on O_APPEND: lines of several processes never interleave.
        fd = os.open(self._log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        try:
            os.write(fd, line.encode())
            os.fsync(fd)
        finally:
            os.close(fd)


def _die(once: str | None) -> None:
    if once is not None:
        try:
            os.close(os.open(once, os.O_CREAT | os.O_EXCL))
        except FileExistsError:
            return
    os.kill(os.getpid(), signal.SIGKILL)
