"""Whisper through faster-whisper / CTranslate2: the embedded default engine. ASR only.

Waveforms in, one Hypothesis each out. Knows nothing of files or recordings.

Whisper hears 30 s windows; most of one is padding when chunks are cut at pauses. Here a window is the
chunk and a margin of silence, in steps of 2 s: on a CPU core tiny.en encodes 8 s in 0.05 s where 30 s
take 0.45 s. Two things go wrong now and then, and both can be seen in what comes out:
- the decoder repeats itself (in short windows above all): redone in the full window, and where that
  does not help, split at the quietest point;
- it leaves out a phrase: then words begin and end everywhere but there. Split there and redone.
All of it is greedy and depends on the chunk alone, never on its batch.

Options (`engine.options`):
    margin_seconds: float, default 4; silence after a chunk in its window; 30: always the full window.
    language: code for multilingual models, default `en`.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from dawnchorus import installing
from dawnchorus.config import EngineConfig
from dawnchorus.engines import devices, hub, memory
from dawnchorus.engines.base import Identity, Licence, Waveform
from dawnchorus.engines.batching import is_out_of_memory, run_in_batches
from dawnchorus.engines.checks import check
from dawnchorus.engines.takes import Take, cut, hypothesis, joined, judged, out_of_memory, token_limit
from dawnchorus.engines.whisper_weights import EMBEDDED_SHA256, INSTALL, model_path, weights_sha256
from dawnchorus.errors import ConfigError, EngineUnavailable
from dawnchorus.records import Hypothesis, Seconds, Word

if TYPE_CHECKING:
    from faster_whisper import WhisperModel

_OPTIONS: dict[str, Any] = {"margin_seconds": 4.0, "language": "en"}
_FULL_FRAMES = 3000  # 30 s of 10 ms frames
_STEP_FRAMES = 200
_HOP_SAMPLES = 160
_SHORTEST_SAMPLES = 1600  # shorter chunks are padded with silence before the features
# Padded seconds of one call on a CPU: larger batches fall out of the cache. 8 s windows took 0.124 s
# each one by one, 0.082 s by eight, 0.086 s by sixteen; 30 s windows 0.55 s by one, 0.65 s by eight.
_CPU_BATCH_SECONDS = 60.0

_MOST_TOKENS = 224
_UNSURE = -0.8  # mean log-probability below which the full window is tried, too
_NONSENSE = -1.0  # and below which nobody speaks, if the model says so; as in Whisper's own decoding
_NO_SPEECH = 0.6
# Parts of parts of a chunk. Fixed windows of 30 s lose 87 words of 2,750 at 2, 52 at 4. Loops are
# split less often: each part costs a full window, and a recording full of music is full of them.
_MOST_SPLITS = 4
_MOST_LOOP_SPLITS = 2
# OpenAI's own models, by their short names.
_OPENAI = re.compile(r"(tiny|base|small|medium|large)(\.en|-v[123]|-v3-turbo)?|turbo")
# Punctuation that belongs to the word after it, and to the word before it.
_PREPENDED = "\"'“¿([{-"
_APPENDED = "\"'.。,，!！?？:：”)]}、"  # noqa: RUF001


@dataclass(frozen=True, slots=True)
class _Job:
    """A waveform to decode in a window of `frames`."""

    waveform: Waveform
    frames: int


class WhisperEngine:
    """faster-whisper behind the engine contract; see the module's page for its options."""

    name: ClassVar[str] = "whisper"
    sampling_rate: ClassVar[int] = 16_000
    max_chunk_seconds: ClassVar[Seconds] = 30.0
    licence: ClassVar[Licence] = Licence(
        "MIT", "https://github.com/openai/whisper/blob/main/LICENSE", "Whisper by OpenAI"
    )

    def __init__(self, config: EngineConfig) -> None:
        """Raises ConfigError for an option that this engine does not have."""
        unknown = sorted(set(config.options) - set(_OPTIONS))
        if unknown:
            raise ConfigError(
                f"The whisper engine has no option {unknown[0]!r}.", f"It has: {', '.join(_OPTIONS)}."
            )
        self._config = config
        self._options = _OPTIONS | config.options
        self._redo_logprob = _UNSURE if config.redo_logprob is None else config.redo_logprob
        self._model: WhisperModel | None = None

    def identity(self) -> Identity:
        """Name, revision and the hash of the weights; a hub model is downloaded for it."""
        path = model_path(self._config.model, self._config.revision, self._config.cache)
        digest = weights_sha256(path / "model.bin")
        if self._config.model is None and digest != EMBEDDED_SHA256:
            raise EngineUnavailable(
                f"The embedded weights are not those expected: SHA-256 {digest[:16]}…", f"{INSTALL} anew."
            )
        facts = {
            "weights_sha256": digest,
            # As asked for: the driver may have another device than the workers.
            "dtype": self._config.dtype,
            **installing.versions("whisper", "faster_whisper", "ctranslate2"),
            "redo_logprob": self._redo_logprob,
            **{k: self._options[k] for k in sorted(self._options)},
        }
        model = self._config.model or "tiny.en"
        # Others are somebody's own: their licence is what their card says.
        licence = None if _OPENAI.fullmatch(model) else hub.licence(path, model)
        revision = self._config.revision or f"sha256:{digest[:12]}"
        return Identity(model, revision, facts, licence, english_only=model.endswith(".en"))

    def load(self) -> None:
        """Load the weights after checking them, and run once."""
        self.identity()
        path = model_path(self._config.model, self._config.revision, self._config.cache)
        try:
            from faster_whisper import WhisperModel

            self._model = WhisperModel(
                str(path),
                device=self._device(),
                compute_type=self._dtype(),
                cpu_threads=self._config.threads or len(os.sched_getaffinity(0)),
            )
            self._prepare()
            devices.prove(*self.transcribe([np.full(self.sampling_rate, 1e-4, np.float32)]))
        except ImportError as e:
            raise EngineUnavailable(f"faster-whisper cannot be imported: {e}.", INSTALL) from e
        except (RuntimeError, ValueError) as e:
            fix = devices.fix_of(e, "Download or copy the model anew.")
            raise EngineUnavailable(f"The Whisper model in {path} cannot be loaded: {e}.", fix) from e
        # CTranslate2 does not say what memory it uses: nothing is measured.
        run, on_gpu = memory.by_transcribing(self), self._device() != "cpu"
        memory.settle(self._config, None, self.max_chunk_seconds, run, on_gpu)

    def _prepare(self) -> None:
        from faster_whisper.tokenizer import Tokenizer
        from faster_whisper.transcribe import get_suppressed_tokens

        assert self._model is not None
        multilingual = self._model.model.is_multilingual
        task, language = ("transcribe", self._options["language"]) if multilingual else (None, None)
        self._tokenizer = Tokenizer(self._model.hf_tokenizer, multilingual, task, language)
        self._suppressed = list(get_suppressed_tokens(self._tokenizer, [-1]))

    def close(self) -> None:
        """Free the model."""
        self._model = None

    def transcribe(self, waveforms: Sequence[Waveform]) -> list[Hypothesis]:
        """One Hypothesis per waveform; see the module's page for how doubtful ones are redone."""
        results = [check(w, self.sampling_rate, self.max_chunk_seconds) for w in waveforms]
        for i, samples in enumerate(waveforms):
            if results[i] is None and not samples.any():
                results[i] = Hypothesis(finish_reason="empty")
        good = [i for i, r in enumerate(results) if r is None]
        for i, settled in zip(good, self._settle([waveforms[i] for i in good]), strict=True):
            results[i] = settled
        return [r for r in results if r is not None]

    def _settle(self, waveforms: Sequence[Waveform], splits: int = _MOST_SPLITS) -> list[Hypothesis]:
        """Decode; redo the doubtful in the full window; split what repeats itself or leaves speech out."""
        if not waveforms:
            return []
        rate = self.sampling_rate
        takes = self._decode([_Job(w, self._window(w)) for w in waveforms])
        again = [i for i, t in enumerate(takes) if t.doubtful]
        fulls = self._decode([_Job(waveforms[i], _FULL_FRAMES) for i in again])
        for i, full in zip(again, fulls, strict=True):
            takes[i] = max(takes[i], full, key=lambda t: t.rank)
        hypotheses = [hypothesis(t, len(w) / rate) for t, w in zip(takes, waveforms, strict=True)]
        for i in again:
            hypotheses[i] = replace(hypotheses[i], flags=("redone", *hypotheses[i].flags))
        cuts = {i: cut(t, w, rate) for i, (t, w) in enumerate(zip(takes, waveforms, strict=True))}
        spent = _MOST_SPLITS - splits
        most = [_MOST_LOOP_SPLITS if t.loops else _MOST_SPLITS for t in takes]
        split = {i: at for i, at in cuts.items() if at is not None and spent < most[i]}
        halves = [h for i, at in split.items() for h in np.split(waveforms[i], [at])]
        parts = self._settle(halves, splits - 1)
        for n, (i, at) in enumerate(split.items()):
            whole = joined(hypotheses[i], parts[2 * n], parts[2 * n + 1], at / rate)
            if takes[i].loops or len(whole.text) > len(hypotheses[i].text):
                hypotheses[i] = whole
        return hypotheses

    def _window(self, waveform: Waveform) -> int:
        """Frames of the window: the chunk and the margin, rounded up to 2 s."""
        frames = len(waveform) / _HOP_SAMPLES + self._options["margin_seconds"] * 100
        return min(_FULL_FRAMES, int(-(-frames // _STEP_FRAMES)) * _STEP_FRAMES)

    def _decode(self, jobs: Sequence[_Job]) -> list[Take]:
        """One take per job, or an error where memory does not suffice for it alone."""
        results: dict[int, Take] = {}
        budget = self._config.batch_seconds or memory.DEFAULT_SECONDS
        if self._device() == "cpu":
            budget = min(budget, _CPU_BATCH_SECONDS)
        # One window length a call: a chunk's window must not depend on its neighbours.
        for frames in sorted({j.frames for j in jobs}, reverse=True):
            at = [i for i, j in enumerate(jobs) if j.frames == frames]
            takes = run_in_batches(
                [jobs[i] for i in at],
                [frames / 100] * len(at),
                budget,
                self._decode_batch,
                is_out_of_memory,
                lambda _, e: out_of_memory(e),
                [len(jobs[i].waveform) / self.sampling_rate for i in at],
            )
            results.update(zip(at, takes, strict=True))
        return [results[i] for i in range(len(jobs))]

    def _decode_batch(self, jobs: list[_Job]) -> list[Take]:
        if self._model is None:
            raise RuntimeError("the engine is not loaded")
        model, frames = self._model, jobs[0].frames
        encoded = model.encode(np.stack([self._features(j) for j in jobs]))
        limit = min(_MOST_TOKENS, token_limit(frames / 100))
        prompt = [*self._tokenizer.sot_sequence, self._tokenizer.no_timestamps]
        outputs = model.model.generate(
            encoded,
            [prompt] * len(jobs),
            beam_size=1,
            max_length=len(prompt) + limit,
            return_scores=True,
            return_no_speech_prob=True,
            suppress_blank=True,
            suppress_tokens=self._suppressed,
        )
        tokens = [[t for t in o.sequences_ids[0] if t < self._tokenizer.eot] for o in outputs]
        words = self._align(encoded, tokens, jobs)
        return [self._take(o, w, j, limit) for o, w, j in zip(outputs, words, jobs, strict=True)]

    def _take(self, output: Any, words: tuple[Word, ...], job: _Job, limit: int) -> Take:
        tokens = output.sequences_ids[0]
        seconds = len(job.waveform) / self.sampling_rate
        # CTranslate2 gives the mean over the tokens, the end of text is one more.
        logprob = round(output.scores[0] * len(tokens) / (len(tokens) + 1), 4)
        text = self._tokenizer.decode(tokens).strip()
        if output.no_speech_prob > _NO_SPEECH and logprob < _NONSENSE:
            text, words = "", ()
        doubts, gap = judged(text, len(tokens), logprob, words, seconds, limit)
        if logprob < self._redo_logprob:
            doubts = (*doubts, "low_logprob")
        return Take(text, len(tokens), logprob, doubts, words, gap)

    def _features(self, job: _Job) -> NDArray[np.float32]:
        assert self._model is not None
        missing = max(0, _SHORTEST_SAMPLES - len(job.waveform))
        features = self._model.feature_extractor(np.pad(job.waveform, (0, missing)))[:, : job.frames]
        return np.pad(features, ((0, 0), (0, job.frames - features.shape[1]))).astype(np.float32)

    def _align(self, encoded: Any, tokens: list[list[int]], jobs: list[_Job]) -> list[tuple[Word, ...]]:
        from faster_whisper.transcribe import merge_punctuations

        assert self._model is not None
        sizes = [max(_SHORTEST_SAMPLES, len(j.waveform)) for j in jobs]
        lengths = [min(jobs[0].frames, -(-n // _HOP_SAMPLES)) for n in sizes]
        if self._device() == "cpu":
            # In a batch of mixed lengths word times move by a frame now and then; alone they do not.
            from ctranslate2 import StorageView

            rows = np.asarray(encoded)
            alone = [StorageView.from_array(rows[i : i + 1]) for i in range(len(jobs))]
            parts = zip(tokens, alone, lengths, strict=True)
            found = [self._model.find_alignment(self._tokenizer, [t], e, [n])[0] for t, e, n in parts]
        else:
            found = self._model.find_alignment(self._tokenizer, tokens, encoded, lengths)
        words = []
        for alignment, job in zip(found, jobs, strict=True):
            merge_punctuations(alignment, _PREPENDED, _APPENDED)
            end = len(job.waveform) / self.sampling_rate
            words.append(tuple(_word(w, end) for w in alignment if w["word"].strip()))
        return words

    def _device(self) -> str:
        if self._config.device != "auto":
            return self._config.device
        import ctranslate2

        return "cuda" if ctranslate2.get_cuda_device_count() else "cpu"

    def _dtype(self) -> str:
        if self._config.dtype != "auto":
            return self._config.dtype
        return "int8" if self._device() == "cpu" else "float16"


def _word(found: dict[str, Any], end: Seconds) -> Word:
    start = min(max(0.0, float(found["start"])), end)
    # Alignment differs by 1e-7 with the batch; three digits hold what anybody needs.
    prob = round(float(found["probability"]), 3)
    return Word(start, min(max(start, float(found["end"])), end), found["word"], prob)
