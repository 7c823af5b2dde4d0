"""Any ASR model of NeMo: Parakeet (CTC, RNN-T, TDT), FastConformer hybrids, Canary; ASR only.

Waveforms in, one Hypothesis each out, with word times and probabilities from CTC and transducer models
(a Canary gives one segment without; what loops in it is said once, and flagged). Knows nothing of files or
recordings. The model is a `.nemo` file: of a hub repository, a path, or a URL.

A `.nemo` file is a tar with a configuration and pickled weights. It is opened without trust: weights by
torch's `weights_only` loader, which runs no code, whatever the environment says; classes only from NeMo's
own list of modules; members that lead out of the archive are skipped.

Waveforms go in as arrays: no temporary files. Shorter ones than a second are padded behind; NeMo would pad
them on both sides, and move their words. Decoding is greedy, as the model was configured for.

Options (`engine.options`):
    confidence: bool, default true; word probabilities and log-probabilities of transducers.
    language: code, default `en`; for Canary models, which are told what they hear.
"""

from __future__ import annotations

import importlib
import os
import pickle
import tarfile
import threading
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from dawnchorus import installing, storage
from dawnchorus.config import EngineConfig
from dawnchorus.engines import devices, hub, memory
from dawnchorus.engines.base import Identity, Licence, Waveform
from dawnchorus.engines.batching import is_out_of_memory, run_in_batches
from dawnchorus.engines.checks import check, error
from dawnchorus.engines.nemo_loading import connector, hush, up_to_the_decoders_limit
from dawnchorus.engines.nemo_text import hypothesis, mean_logprob, probability, spread, words, written
from dawnchorus.engines.staging import is_remote, staged_file
from dawnchorus.errors import ConfigError, EngineUnavailable
from dawnchorus.records import Hypothesis, Seconds

INSTALL = installing.command("nemo")
DEFAULT_MODEL = "nvidia/parakeet-tdt-0.6b-v2"
_CC_BY = "https://creativecommons.org/licenses/by/4.0/"
_OPTIONS: dict[str, Any] = {"confidence": True, "language": "en"}
_ENGLISH_ONLY = {
    DEFAULT_MODEL,
    "nvidia/parakeet-tdt-1.1b",
    "nvidia/parakeet-ctc-0.6b",
    "nvidia/parakeet-rnnt-0.6b",
}
# NeMo pads shorter ones itself, half of it in front.
_SHORTEST_SAMPLES = 16_000
_BROKEN = (
    *(ImportError, OSError, ValueError, KeyError, TypeError, AttributeError, RuntimeError),
    *(pickle.UnpicklingError, tarfile.TarError),
)


class NemoAsrEngine:
    """A NeMo ASR model behind the engine contract; see the module's page for its options."""

    name: ClassVar[str] = "nemo_asr"
    sampling_rate: ClassVar[int] = 16_000
    max_chunk_seconds: ClassVar[Seconds] = 30.0
    licence: ClassVar[Licence] = Licence(
        "CC-BY-4.0", _CC_BY, f"parakeet-tdt-0.6b-v2 by NVIDIA, {hub.HUB}/{DEFAULT_MODEL}, unchanged"
    )

    def __init__(self, config: EngineConfig) -> None:
        """Raises ConfigError for an option that this engine does not have."""
        unknown = sorted(set(config.options) - set(_OPTIONS))
        if unknown:
            raise ConfigError(
                f"The nemo_asr engine has no option {unknown[0]!r}.", f"It has: {', '.join(_OPTIONS)}."
            )
        self._config = config
        self._options = _OPTIONS | config.options
        self._model_name = config.model or DEFAULT_MODEL
        self._model: Any = None
        self._batch_seconds = config.batch_seconds or memory.DEFAULT_SECONDS
        # NeMo's transcribe sets and restores the model's state: one call at a time.
        self._lock = threading.Lock()

    def identity(self) -> Identity:
        """Name, commit and the hash of the `.nemo` file; a hub model is not downloaded for it,
        one in a bucket is."""
        versions = installing.versions("nemo", "nemo_toolkit", "torch")
        folder, name = self._place
        sha256 = hub.claimed_sha256(folder, self._source, name)
        model = storage.redact(self._model_name)
        if sha256 is None:
            raise EngineUnavailable(f"There is no {name} in {model}.", "Check engine.model.")
        facts = {
            "weights_sha256": sha256,
            # As asked for: the driver may have another device than the workers.
            "dtype": self._config.dtype,
            **versions,
            "language": self._options["language"],
        }
        revision = hub.commit(folder, self._source) or f"sha256:{sha256[:12]}"
        licence = None if self._model_name == DEFAULT_MODEL else hub.licence(folder, self._source)
        english = self._model_name in _ENGLISH_ONLY or hub.languages(folder) == ["en"]
        return Identity(model, revision, facts, licence, english)

    @cached_property
    def _source(self) -> str:
        """The model's name on the hub, or its path; what lies in a bucket is fetched."""
        if is_remote(self._model_name):
            return str(staged_file(self._model_name, self._config.cache))
        return storage.local_path(self._model_name) if "://" in self._model_name else self._model_name

    @cached_property
    def _place(self) -> tuple[Path, str]:
        """Folder and name of the `.nemo` file; of a hub model the folder that it will be in."""
        model = self._source
        if hub.is_local(model) or model.endswith(".nemo"):
            path = Path(model).expanduser()
            if path.is_file():
                return path.parent, path.name
            if not path.is_dir():
                raise EngineUnavailable(f"There is no file {model}.", "Check the path in engine.model.")
            found = sorted(p.name for p in path.glob("*.nemo"))
            if len(found) != 1:
                raise EngineUnavailable(f"{model} is no .nemo file.", "Name the file in engine.model.")
            return path, found[0]
        folder = hub.fetch(model, self._config.revision, ("README.md",), INSTALL)
        return folder, f"{model.rpartition('/')[2]}.nemo"

    def load(self) -> None:
        """Load the model after checking its file, and run once.

        Raises:
            EngineUnavailable: it is another file than identified, damaged, unsafe, or no 16 kHz model.
        """
        expected = self.identity().facts["weights_sha256"]
        folder, name = self._place
        if not hub.is_local(self._source):
            folder = hub.fetch(self._source, self._config.revision, (name,), INSTALL)
        path = folder / name
        if hub.actual_sha256(path) != expected:
            raise EngineUnavailable(f"{path} is damaged.", "Download it anew.")
        try:
            self._model = self._restored(path)
        except _BROKEN as e:
            fix = INSTALL if isinstance(e, ImportError) else devices.fix_of(e, "Download it anew.")
            raise EngineUnavailable(f"The model in {path} cannot be loaded: {e}.", fix) from e
        devices.prove(*self.transcribe([np.full(self.sampling_rate, 1e-4, np.float32)]))
        gauge = memory.gauge(self._config, str(self._device()))
        self._batch_seconds = memory.settle(self._config, gauge, self.max_chunk_seconds, self._warm_up)

    def _warm_up(self, budget: Seconds) -> None:
        """Transcribe a batch of noise."""
        self._batch_seconds = budget
        self.transcribe(memory.noise(budget, self.max_chunk_seconds, self.sampling_rate))

    def _restored(self, path: Path) -> Any:
        hush()
        torch = importlib.import_module("torch")
        models = importlib.import_module("nemo.collections.asr.models")
        hush()
        torch.set_num_threads(self._config.threads or len(os.sched_getaffinity(0)))
        device = torch.device(self._device())
        model = models.ASRModel.restore_from(
            str(path), map_location=device, strict=True, save_restore_connector=connector()
        )
        rate = model.cfg.get("sample_rate") or model.cfg.preprocessor.sample_rate
        if rate != self.sampling_rate:
            raise ValueError(f"it hears {rate} Hz, not {self.sampling_rate} Hz")
        self._frame = float(model.cfg.preprocessor.window_stride) * getattr(
            model.encoder, "subsampling_factor", 1
        )
        self._prompted = isinstance(model, models.EncDecMultiTaskModel)
        if self._prompted:
            model.change_decoding_strategy(up_to_the_decoders_limit(model))
        else:
            model.change_decoding_strategy(self._decoding(model), verbose=False)
        model.freeze()
        return model.eval()

    def _decoding(self, model: Any) -> Any:
        """The model's own decoding, with word times; with probabilities where they cost little."""
        open_dict = importlib.import_module("omegaconf").open_dict
        decoding = model.cfg.decoding
        with open_dict(decoding):
            decoding.compute_timestamps = True
            if self._options["confidence"] and hasattr(model, "joint"):
                decoding.confidence_cfg = {
                    "preserve_token_confidence": True,
                    "preserve_word_confidence": True,
                    # With blanks the decoder would record every step, and leave its fast path.
                    "exclude_blank": True,
                    "aggregation": "mean",
                    "method_cfg": {"name": "max_prob", "alpha": 1.0},
                }
        return decoding

    def close(self) -> None:
        """Free the model."""
        self._model = None

    def transcribe(self, waveforms: Sequence[Waveform]) -> list[Hypothesis]:
        """One Hypothesis per waveform."""
        if self._model is None:
            raise RuntimeError("the engine is not loaded")
        results = [check(w, self.sampling_rate, self.max_chunk_seconds) for w in waveforms]
        for i, samples in enumerate(waveforms):
            if results[i] is None and not samples.any():
                results[i] = Hypothesis(finish_reason="empty")
        good = [i for i, r in enumerate(results) if r is None]
        heard = run_in_batches(
            [waveforms[i] for i in good],
            [max(len(waveforms[i]), _SHORTEST_SAMPLES) / self.sampling_rate for i in good],
            self._batch_seconds,
            self._hear,
            self._is_out_of_memory,
            lambda _, e: error("out_of_memory", f"Out of memory for one chunk: {e}.", transient=True),
            [len(waveforms[i]) / self.sampling_rate for i in good],
        )
        for i, found in zip(good, heard, strict=True):
            results[i] = found
        return [r for r in results if r is not None]

    def _hear(self, batch: list[Waveform]) -> list[Hypothesis]:
        torch = importlib.import_module("torch")
        padded = [np.pad(w, (0, max(0, _SHORTEST_SAMPLES - len(w)))) for w in batch]
        language = self._options["language"]
        prompt = {"source_lang": language, "target_lang": language} if self._prompted else {}
        dtype = self._dtype()
        narrow = torch.autocast(self._device(), getattr(torch, dtype), enabled=dtype != "float32")
        with self._lock, torch.inference_mode(), narrow:
            found = self._model.transcribe(
                padded,
                batch_size=len(padded),
                return_hypotheses=True,
                num_workers=0,
                verbose=False,
                **prompt,
            )
        found = found[0] if isinstance(found, tuple) else found
        return [self._said(f, len(w) / self.sampling_rate) for f, w in zip(found, batch, strict=True)]

    def _said(self, found: Any, seconds: Seconds) -> Hypothesis:
        offsets = found.timestamp.get("word", []) if isinstance(found.timestamp, dict) else []
        tokens = found.y_sequence
        if self._prompted:
            return written(found.text, len(tokens), seconds)
        if getattr(tokens, "ndim", 1) == 2:  # CTC: log-probabilities of every frame
            best, labels = tokens.float().max(-1)
            blank = tokens.shape[-1] - 1
            frames = {i: p for i, p in enumerate(best.exp().tolist()) if int(labels[i]) != blank}
            probs, of_words = list(frames.values()), spread(offsets, frames)
            num_tokens = len(offsets and found.timestamp.get("char", ()))
        else:
            num_labels = self._num_labels()
            probs = [probability(c, num_labels) for c in found.token_confidence or ()]
            of_words = [probability(c, num_labels) for c in found.word_confidence or ()]
            num_tokens = len(tokens)
        spoken = words(offsets, of_words or None, self._frame, seconds)
        return hypothesis(found.text, spoken, seconds, mean_logprob(probs), num_tokens)

    def _num_labels(self) -> int:
        """Labels of a transducer, the blank included."""
        joint = getattr(self._model, "joint", None)
        return int(joint.num_classes_with_blank - joint.num_extra_outputs) if joint is not None else 2

    def _is_out_of_memory(self, e: Exception) -> bool:
        found = is_out_of_memory(e)
        if found and self._device() == "cuda":
            importlib.import_module("torch").cuda.empty_cache()
        return found

    def _device(self) -> str:
        if self._config.device != "auto":
            return self._config.device
        return "cuda" if importlib.import_module("torch").cuda.is_available() else "cpu"

    def _dtype(self) -> str:
        if self._config.dtype != "auto":
            return self._config.dtype
        return "bfloat16" if self._device() == "cuda" else "float32"
