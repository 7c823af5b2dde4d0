"""Where speech is: silero's network, frame by frame, over a stream of samples.

Returns speech probabilities of 32 ms frames. Knows no regions, chunks or files. The network runs
through onnxruntime; its weights lie in the faster_whisper package, which is found, not imported.
"""

from __future__ import annotations

import hashlib
import importlib.util
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dawnchorus import installing
from dawnchorus.errors import EngineUnavailable

SAMPLING_RATE = 16_000
FRAME_SAMPLES = 512
_CONTEXT_SAMPLES = 64
_STATE_SHAPE = (1, 1, 128)
# Every call but the last gets exactly this many frames (8 s): the result then does not depend, in any
# bit, on how the stream is cut into pushes. One thread hears 373 s of audio per second in batches of
# 16 frames, 410 in 64, 512 in 256, 533 in 1024.
_BATCH_FRAMES = 256
_WEIGHTS = "assets/silero_vad_v6.onnx"


def _weights() -> Path:
    spec = importlib.util.find_spec("faster_whisper")
    for folder in (spec.submodule_search_locations or ()) if spec else ():
        path = Path(folder) / _WEIGHTS
        if path.is_file():
            return path
    raise EngineUnavailable("The VAD's weights are not here.", installing.command("audio"))


class SpeechDetector:
    """The network, loaded once per process and shared by any number of streams.

    `version` names weights and runtime: two of the same version hear the same.

    Raises:
        EngineUnavailable: onnxruntime or the weights are missing.
    """

    sampling_rate = SAMPLING_RATE
    frame_samples = FRAME_SAMPLES

    def __init__(self) -> None:
        try:
            import onnxruntime
        except ImportError as e:
            raise EngineUnavailable("onnxruntime is not here.", installing.command("audio")) from e
        weights = _weights().read_bytes()
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.inter_op_num_threads = 1
        options.enable_cpu_mem_arena = False
        options.log_severity_level = 4
        self._session = onnxruntime.InferenceSession(weights, options, providers=["CPUExecutionProvider"])
        digest = hashlib.sha256(weights).hexdigest()[:16]
        self.version = f"silero_vad_v6 sha256:{digest} onnxruntime:{onnxruntime.__version__}"

    def stream(self) -> SpeechStream:
        """A new stream of one channel."""
        return SpeechStream(self)

    def run(
        self, frames: NDArray[np.float32], state: tuple[NDArray[np.float32], NDArray[np.float32]]
    ) -> tuple[NDArray[np.float32], tuple[NDArray[np.float32], NDArray[np.float32]]]:
        """Probabilities `(num_frames,)` of `(num_frames, 64 + 512)` samples in [-1, 1], and the new state."""
        probabilities, h, c = self._session.run(None, {"input": frames, "h": state[0], "c": state[1]})
        return probabilities.astype(np.float32), (h, c)


class SpeechStream:
    """One channel of one recording, 16 kHz, heard from its start to its end."""

    def __init__(self, detector: SpeechDetector) -> None:
        self._detector = detector
        self._state = (np.zeros(_STATE_SHAPE, np.float32), np.zeros(_STATE_SHAPE, np.float32))
        # The samples not yet heard, after the last 64 heard ones.
        self._rest = np.zeros(_CONTEXT_SAMPLES, np.float32)

    def push(self, samples: NDArray[np.int16]) -> NDArray[np.float32]:
        """Probabilities of the frames that are decided now (whole batches)."""
        self._rest = np.concatenate([self._rest, samples.astype(np.float32) / 32768])
        outputs = [np.zeros(0, np.float32)]
        step = _BATCH_FRAMES * FRAME_SAMPLES
        start = 0
        while len(self._rest) - _CONTEXT_SAMPLES - start >= step:
            outputs.append(self._hear(self._rest[start : start + _CONTEXT_SAMPLES + step]))
            start += step
        self._rest = self._rest[start:].copy()
        return np.concatenate(outputs)

    def finish(self) -> NDArray[np.float32]:
        """Probabilities of what is left; the last frame is padded with zeros."""
        left = len(self._rest) - _CONTEXT_SAMPLES
        if left == 0:
            return np.zeros(0, np.float32)
        return self._hear(np.pad(self._rest, (0, -left % FRAME_SAMPLES)))

    def _hear(self, samples: NDArray[np.float32]) -> NDArray[np.float32]:
        windows = np.lib.stride_tricks.sliding_window_view(samples, _CONTEXT_SAMPLES + FRAME_SAMPLES)
        frames = np.ascontiguousarray(windows[::FRAME_SAMPLES])
        probabilities, self._state = self._detector.run(frames, self._state)
        return probabilities
