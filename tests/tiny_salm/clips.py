"""Writes the committed recordings: `clips/`, spoken by voices no model was trained on.

    PYTHONPATH=tests python -m tiny_salm.clips

`clips/manifest.jsonl` is a NeMo manifest of short utterances with their words. `clips/failures.jsonl` names
the sounds that the trained model gets wrong, and how. All of it is synthetic: no person was recorded.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
from numpy.typing import NDArray

from tiny_salm import sounds, speech
from tiny_salm.evaluate import CLIPS

SEED = 20
NUM_UTTERANCES, NUM_LOSSLESS = 26, 2
NUM_LONG, LONG_WORDS = 10, (4, 5)
"""Utterances in the over-long clip: twice the words of the longest one in training."""
HISS_SECONDS = 8


def write(name: str, samples: NDArray[np.float32]) -> dict[str, Any]:
    """Writes one recording; returns its row without a text."""
    path = CLIPS / name
    if path.suffix == ".ogg":
        soundfile.write(path, samples, speech.SAMPLING_RATE, format="OGG", subtype="VORBIS")
    else:
        soundfile.write(path, samples, speech.SAMPLING_RATE, subtype="PCM_16")
    path.chmod(0o644)
    return {"audio_filepath": name, "duration": round(len(samples) / speech.SAMPLING_RATE, 3)}


def utterances(rng: np.random.Generator, espeak: speech.Espeak) -> list[dict[str, Any]]:
    """Short clips; the first ones are without noise and lossless."""
    rows = []
    drawn = speech.utterances(espeak, SEED, NUM_UTTERANCES, speech.UNSEEN_VOICES, range(2, 7))
    for index, said in enumerate(drawn):
        lossless = index < NUM_LOSSLESS
        samples, _ = sounds.hear(rng, [said], (0.2, 0.5), 1.0 if lossless else 0.3)
        name = f"{index:02}-{said.voice.name.replace('+', '-')}.{'flac' if lossless else 'ogg'}"
        rows.append({**write(name, samples), "text": said.text, "speaker": f"synthetic {said.voice.name}"})
    return rows


def failures(rng: np.random.Generator, espeak: speech.Espeak) -> list[dict[str, Any]]:
    """Silence, noise, and more words at once than the model can count."""
    rate = speech.SAMPLING_RATE
    said = list(speech.utterances(espeak, SEED + 1, NUM_LONG, speech.UNSEEN_VOICES[:1], LONG_WORDS))
    long, _ = sounds.hear(rng, said, (0.2, 0.5), 1.0)
    hiss = (np.random.default_rng(SEED).standard_normal(HISS_SECONDS * rate) * 0.05).astype(np.float32)
    return [
        {**write("silence.flac", np.zeros(rate, np.float32)), "text": "", "failure": "words on silence"},
        {**write("noise.ogg", hiss), "text": "", "failure": "a loop on noise"},
        {
            **write("long.ogg", long),
            "text": " ".join(u.text for u in said),
            "failure": "words lost",
        },
    ]


def main() -> None:
    shutil.rmtree(CLIPS, ignore_errors=True)
    CLIPS.mkdir()
    espeak, rng = speech.Espeak(), np.random.default_rng(SEED)
    for name, rows in (
        ("manifest.jsonl", utterances(rng, espeak)),
        ("failures.jsonl", failures(rng, espeak)),
    ):
        text = "".join(json.dumps(row) + "\n" for row in rows)
        (Path(CLIPS) / name).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
