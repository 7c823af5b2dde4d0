"""Synthetic speech with known word boundaries: espeak-ng's library, called in this process.

`speak` yields utterances at 16 kHz with the start and end of every word; `utterances` draws them from a
seed. Knows no model and no noise. Needs Debian's `libespeak-ng1` and `espeak-ng-data`, at training time only.
Over 900 s of speech per CPU second in one process, where one process per utterance made 100 s.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import soxr
from numpy.typing import NDArray

SAMPLING_RATE = 16_000


def _list(text: str) -> list[str]:
    return text.split()


DIGITS = _list("zero one two three four five six seven eight nine")
COMMANDS = _list(
    "yes no up down left right stop go on off open close start play pause next back call send help"
)
WORDS = [*DIGITS, *COMMANDS]
# American, British, received pronunciation, Scottish.
ACCENTS = ["en-us", "en", "en-gb-x-rp", "en-gb-scotland"]
# Variants of espeak's synthetic voice; whispers, robots and croaks are left out.
TRAINING_VOICES = _list(
    "m1 m2 m3 m4 m5 m6 m8 f1 f2 f3 f5 klatt2 Andy linda Alicia Lee Alex Michael Mike Gene steph "
    "Denis Hugo Marco Mario anika adam john paul"
)
UNSEEN_VOICES = ["m7", "f4", "Diogo", "Annie"]
LOUD = 200
"""Of 32,768: below it at an utterance's end there is no speech."""

# Constants of speak_lib.h.
_SYNCHRONOUS, _WORD, _CHARACTERS, _UTF8 = 2, 1, 1, 1
_RATE, _PITCH, _WORD_GAP = 1, 3, 7


class _Event(ctypes.Structure):
    _fields_ = [
        ("type", ctypes.c_int),
        ("identifier", ctypes.c_uint),
        ("text_position", ctypes.c_int),
        ("length", ctypes.c_int),
        ("audio_position", ctypes.c_int),
        ("sample", ctypes.c_int),
        ("user_data", ctypes.c_void_p),
        ("name", ctypes.c_char * 8),
    ]


_Callback = ctypes.CFUNCTYPE(
    ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.POINTER(_Event)
)


@dataclass(frozen=True)
class Voice:
    """How somebody speaks: voice name, words per minute, pitch 0-99, pause between words in 10 ms."""

    name: str
    rate: int = 160
    pitch: int = 50
    gap: int = 0
    stretch: float = 1.0
    """Played so much longer and lower: another throat."""


@dataclass(frozen=True)
class Utterance:
    """`samples` int16 at 16 kHz; `spans` `(num_words, 2)`: start and end of each word in seconds."""

    words: tuple[str, ...]
    voice: Voice
    samples: NDArray[np.int16]
    spans: NDArray[np.float64]

    @property
    def text(self) -> str:
        return " ".join(self.words)


class Espeak:
    """The library; one per process (it holds global state)."""

    def __init__(self) -> None:
        self._library: Any = ctypes.CDLL("libespeak-ng.so.1")
        self._libc: Any = ctypes.CDLL(None)
        self._rate: int = self._library.espeak_Initialize(_SYNCHRONOUS, 0, None, 0)
        if self._rate <= 0:
            raise RuntimeError("espeak-ng does not start: is espeak-ng-data installed?")
        self._pieces: list[NDArray[np.int16]] = []
        self._starts: list[int] = []
        self._keep: Callable[..., int] = _Callback(self._receive)
        self._library.espeak_SetSynthCallback(self._keep)

    def speak(self, words: Sequence[str], voice: Voice, separator: str = " ") -> Utterance:
        """Speaks the words; a `separator` of `", "` makes pauses.

        Raises:
            ValueError: no such voice, or the words were not spoken one by one.
        """
        if self._library.espeak_SetVoiceByName(voice.name.encode()) != 0:
            raise ValueError(f"espeak-ng has no voice {voice.name}")
        for parameter, value in ((_RATE, voice.rate), (_PITCH, voice.pitch), (_WORD_GAP, voice.gap)):
            self._library.espeak_SetParameter(parameter, value, 0)
        self._pieces, self._starts = [], []
        # Breath is rand(), whose state other libraries of the process move.
        self._libc.srand(1)
        text = separator.join(words).encode()
        self._library.espeak_Synth(text, len(text) + 1, 0, _CHARACTERS, 0, _UTF8, None, None)
        if len(self._starts) != len(words):
            raise ValueError(f"{text!r} was spoken as {len(self._starts)} words")
        spoken = np.concatenate(self._pieces)
        spans = _spans(np.abs(spoken.astype(np.int32)) > LOUD, self._starts, self._rate // 50)
        samples = soxr.resample(spoken[: spans[-1, 1]], self._rate, SAMPLING_RATE * voice.stretch, "HQ")
        return Utterance(tuple(words), voice, samples, spans / self._rate * voice.stretch)

    def _receive(self, samples: Any, num_samples: int, events: Any) -> int:
        if samples and num_samples > 0:
            self._pieces.append(np.ctypeslib.as_array(samples, (num_samples,)).copy())
        index = 0
        while events[index].type != 0:
            # A word of no letters is the end of a clause.
            if events[index].type == _WORD and events[index].length > 0:
                self._starts.append(events[index].sample)
            index += 1
        return 0


def _spans(loud: NDArray[np.bool_], starts: Sequence[int], tail: int) -> NDArray[np.int64]:
    """Start and end of each word in samples: a word ends `tail` after its last loud sample."""
    made = []
    for start, limit in zip(starts, [*starts[1:], len(loud)], strict=True):
        last = np.flatnonzero(loud[start:limit])
        end = start + int(last[-1]) + tail if len(last) else limit
        made.append((start, min(end, limit)))
    return np.array(made)


def utterances(
    espeak: Espeak, seed: int, number: int, variants: Sequence[str], lengths: Sequence[int]
) -> Iterator[Utterance]:
    """`number` utterances of the closed vocabulary, each by a new voice; the same for the same arguments."""
    rng = np.random.default_rng(seed)
    for _ in range(number):
        voice = Voice(
            name=f"{rng.choice(ACCENTS)}+{rng.choice(variants)}",
            rate=int(rng.integers(120, 216)),
            pitch=int(rng.integers(25, 76)),
            gap=int(rng.choice([0, 0, 0, 1, 2, 4])),
            stretch=float(rng.uniform(0.92, 1.08)),
        )
        words = [str(word) for word in rng.choice(WORDS, size=int(rng.choice(lengths)))]
        # espeak says "no one" as one word.
        pauses = rng.random() < 0.15 or "no one" in " ".join(words)
        yield espeak.speak(words, voice, ", " if pauses else " ")
