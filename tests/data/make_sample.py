"""Speaks `sample_script.yaml` with synthetic voices and writes the sample archive: `sample/`.

Run it only to change the archive: `python tests/data/make_sample.py`. It needs Debian's `flite`,
`espeak-ng` and `ffmpeg`; nothing else in the project does. All speech in the archive is synthetic: no
person was recorded. The pauses are drawn from a fixed seed.

Keys of an entry: `path`, `show`, `speaker`, `voice` (`program:voice`), `sampling_rate`, `encode` (ffmpeg's
output options), `claim_duration` (the manifest states the length), and one of `paragraphs` (one
recording), `slices` (one file, one manifest row per slice), `turns` (a stereo call, `[channel, text]`),
`sound` (no speech), `content` (a file that is not audio), `missing` (no file at all).
"""

from __future__ import annotations

import json
import random
import re
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import soxr
import yaml
from numpy.typing import NDArray

Samples = NDArray[np.float64]
"""Mono samples in [-1, 1], shape `(num_samples,)`."""

HERE = Path(__file__).parent
ARCHIVE = HERE / "sample"
RATE = 16_000
SENTENCE_PAUSE = (0.35, 0.9)
PARAGRAPH_PAUSE = (1.2, 2.2)
TURN_PAUSE = (0.3, 0.8)
SLICE_PAUSE = (2.0, 3.0)
HISS = 0.0005  # -66 dBFS: lossy files get a room's noise, lossless ones stay clean and small


def say(voice: str, text: str) -> Samples:
    """One sentence by one voice, at RATE Hz, its outer silence cut off."""
    program, _, name = voice.partition(":")
    with tempfile.TemporaryDirectory() as folder:
        wav = f"{folder}/speech.wav"
        if program == "flite":
            command = ["flite", "-voice", name, "-t", text, "-o", wav]
        else:
            command = ["espeak-ng", "-v", name, "-s", "140", "-w", wav, text]
        subprocess.run(command, check=True)
        samples, rate = soundfile.read(wav)
    samples = soxr.resample(samples, rate, RATE, "VHQ")
    loud = np.flatnonzero(np.abs(samples) > 0.01)
    samples = samples[max(loud[0] - RATE // 20, 0) : loud[-1] + RATE // 10]
    return np.asarray(samples * (0.6 / np.abs(samples).max()))


def silence(rng: random.Random, between: tuple[float, float]) -> Samples:
    """A pause of random length."""
    return np.zeros(round(rng.uniform(*between) * RATE))


def monologue(rng: random.Random, voice: str, paragraphs: list[str]) -> Samples:
    """Paragraphs, spoken sentence by sentence, with natural pauses."""
    parts = [silence(rng, SENTENCE_PAUSE)]
    for paragraph in paragraphs:
        for sentence in re.split(r"(?<=[.?!])\s+", paragraph.strip()):
            parts += [say(voice, sentence), silence(rng, SENTENCE_PAUSE)]
        parts[-1] = silence(rng, PARAGRAPH_PAUSE)
    parts[-1] = silence(rng, SENTENCE_PAUSE)
    return np.concatenate(parts)


def call(rng: random.Random, voices: list[str], turns: list[tuple[int, str]]) -> Samples:
    """A conversation, shape `(num_samples, num_voices)`: each voice on its own channel, one at a time."""
    rows = [np.zeros((RATE // 2, len(voices)))]
    for channel, text in turns:
        for sentence in re.split(r"(?<=[.?!])\s+", text):
            speech = say(voices[channel], sentence)
            rows.append(np.zeros((len(speech), len(voices))))
            rows[-1][:, channel] = speech
            rows.append(np.zeros((len(silence(rng, TURN_PAUSE)), len(voices))))
    return np.concatenate(rows)


def birds(rng: random.Random, seconds: float) -> Samples:
    """Falling and rising whistles between 2 and 6 kHz: no speech."""
    sound = np.zeros(round(seconds * RATE))
    at = 0.3
    while at < seconds - 0.5:
        length = rng.uniform(0.05, 0.2)
        t = np.arange(round(length * RATE)) / RATE
        low, high = sorted((rng.uniform(2000, 6000), rng.uniform(2000, 6000)))
        sweep = np.linspace(low, high, len(t))[:: rng.choice((1, -1))]
        chirp = 0.3 * np.sin(2 * np.pi * np.cumsum(sweep) / RATE) * np.hanning(len(t))
        start = round(at * RATE)
        sound[start : start + len(t)] += chirp
        at += length + rng.uniform(0.03, 0.5)
    return sound


def encode(samples: Samples, entry: dict[str, Any]) -> None:
    """Write one audio file through ffmpeg, without metadata or version strings."""
    target = ARCHIVE / entry["path"]
    rate = entry.get("sampling_rate", RATE)
    with tempfile.TemporaryDirectory() as folder:
        wav = f"{folder}/plain.wav"
        if rate != RATE:
            samples = soxr.resample(samples, RATE, rate, "VHQ")
        soundfile.write(wav, samples, rate, subtype="PCM_16")
        quiet = ["ffmpeg", "-nostdin", "-loglevel", "error", "-y", "-i", wav]
        exact = ["-map_metadata", "-1", "-fflags", "+bitexact", "-flags:a", "+bitexact"]
        subprocess.run([*quiet, *entry["encode"], *exact, str(target)], check=True)


def manifest_row(entry: dict[str, Any], **columns: Any) -> dict[str, Any]:
    """A NeMo manifest row with two columns of our own; None is left out."""
    row = {"audio_filepath": entry["path"], **columns, "show": entry["show"], "speaker": entry.get("speaker")}
    return {k: v for k, v in row.items() if v is not None}


def make(entry: dict[str, Any]) -> list[dict[str, Any]]:
    """Write one entry's file; returns its manifest rows."""
    rng = random.Random(entry["path"])
    target = ARCHIVE / entry["path"]
    target.parent.mkdir(parents=True, exist_ok=True)
    if entry.get("missing"):
        return [manifest_row(entry)]
    if "content" in entry:
        target.write_text(entry["content"], encoding="utf-8")
        return [manifest_row(entry)]
    if "slices" in entry:
        return slices(rng, entry)
    text: str | None
    if "turns" in entry:
        samples, text = call(rng, entry["voices"], entry["turns"]), " ".join(t for _, t in entry["turns"])
    elif "sound" in entry:
        samples, text = birds(rng, entry["seconds"]), ""
    else:
        samples, text = monologue(rng, entry["voice"], entry["paragraphs"]), " ".join(entry["paragraphs"])
    encode(hiss(samples, entry), entry)
    duration = round(len(samples) / RATE, 3) if entry.get("claim_duration") else None
    return [manifest_row(entry, duration=duration, text=text)]


def slices(rng: random.Random, entry: dict[str, Any]) -> list[dict[str, Any]]:
    """One file, one manifest row per slice of it; slices begin and end inside the pauses."""
    parts, rows, at = [silence(rng, SLICE_PAUSE)], [], 0
    for text in entry["slices"]:
        speech, pause = monologue(rng, entry["voice"], [text]), silence(rng, SLICE_PAUSE)
        at = sum(map(len, parts))
        offset, duration = round(at / RATE, 3), round(len(speech) / RATE, 3)
        rows.append(manifest_row(entry, offset=offset, duration=duration, text=text))
        parts += [speech, pause]
    encode(hiss(np.concatenate(parts), entry), entry)
    return rows


def hiss(samples: Samples, entry: dict[str, Any]) -> Samples:
    """Faint noise under lossy files: real rooms are never digitally silent."""
    if entry["encode"][1] in ("flac", "pcm_mulaw", "pcm_s16le"):
        return samples
    return samples + np.random.default_rng(len(samples)).normal(0, HISS, samples.shape)


def main() -> None:
    """Make the whole archive."""
    script = yaml.safe_load((HERE / "sample_script.yaml").read_text(encoding="utf-8"))
    rows = [row for entry in script for row in make(entry)]
    lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    (ARCHIVE / "manifest.jsonl").write_text(lines, encoding="utf-8")
    size = sum(f.stat().st_size for f in ARCHIVE.rglob("*") if f.is_file())
    print(f"{len(rows)} manifest rows, {size / 1e6:.2f} MB in {ARCHIVE}")


if __name__ == "__main__":
    main()
