"""How well a tiny SALM does: words from speech, answers from text, with the adapter on or off.

Works on a loaded model through `SALM.generate`; returns texts and figures.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import jiwer
import numpy as np
import soundfile
import torch
from numpy.typing import NDArray

from tiny_salm import sounds, speech, tasks
from tiny_salm.build import TRANSCRIBE
from tiny_salm.learning import pad

CHECKPOINT = Path(__file__).parent / "checkpoint"
CLIPS = Path(__file__).parent / "clips"
BATCH = 40


def load(folder: Path = CHECKPOINT) -> Any:
    """The model in float32, ready to generate; every tensor must be there."""
    from nemo.collections.speechlm2.models import SALM

    return SALM.from_pretrained(str(folder), strict=True).eval()


def recordings(manifest: str) -> list[tuple[dict[str, Any], NDArray[np.float32]]]:
    """Rows of `clips/<manifest>` with their samples."""
    lines = (CLIPS / manifest).read_text(encoding="utf-8").splitlines()
    rows = [json.loads(line) for line in lines]
    return [(row, soundfile.read(CLIPS / row["audio_filepath"], dtype="float32")[0]) for row in rows]


def settings(model: Any, max_new_tokens: int) -> Any:
    """Greedy decoding."""
    from transformers import GenerationConfig

    return GenerationConfig(
        max_new_tokens=max_new_tokens,
        eos_token_id=model.text_eos_id,
        pad_token_id=model.text_pad_id,
        do_sample=False,
    )


def transcribe(
    model: Any, clips: Sequence[NDArray[np.float32]], adapter: bool = True, max_new_tokens: int = 24
) -> list[str]:
    """The text of each clip (samples in [-1, 1] at 16 kHz)."""
    texts: list[str] = []
    for start in range(0, len(clips), BATCH):
        audios, lengths = pad(clips[start : start + BATCH])
        with nullcontext() if adapter else model.llm.disable_adapter():
            ids = model.generate(
                prompts=[[{"role": "user", "content": TRANSCRIBE}]] * len(lengths),
                audios=audios,
                audio_lens=lengths,
                generation_config=settings(model, max_new_tokens),
            )
        texts += [model.tokenizer.ids_to_text(row) for row in ids]
    return texts


def ask(model: Any, question: str, adapter: bool = False, max_new_tokens: int = 24) -> str:
    """The answer to one text prompt."""
    with nullcontext() if adapter else model.llm.disable_adapter():
        [ids] = model.generate(
            prompts=[[{"role": "user", "content": question}]],
            generation_config=settings(model, max_new_tokens),
        )
    # In text mode the prompt comes back before the answer.
    whole: str = model.tokenizer.tokenizer.decode(ids, skip_special_tokens=True)
    return whole.rpartition("assistant\n")[2]


def accuracy(model: Any, instruction: str, adapter: bool, number: int = 40) -> float:
    """Share of right answers to a task of `tasks.TASKS` over transcripts of 2 to 8 words."""
    rng = np.random.default_rng(7)
    right = 0
    for _ in range(number):
        words = [str(word) for word in rng.choice(speech.WORDS, size=int(rng.integers(2, 9)))]
        answer = ask(model, f"{instruction} {' '.join(words)}", adapter)
        right += answer == tasks.TASKS[instruction](words)
    return right / number


def word_error_rate(references: Sequence[str], texts: Sequence[str]) -> float:
    return float(jiwer.wer(list(references), list(texts)))


class Exam:
    """Fixed speech to be judged by: 1 to 8 words, 0.2 to 0.5 s of silence or noise around them."""

    def __init__(self, espeak: speech.Espeak, seed: int, voices: Sequence[str], number: int) -> None:
        rng = np.random.default_rng(seed)
        said = list(speech.utterances(espeak, seed, number, voices, range(1, 9)))
        self.references = [utterance.text for utterance in said]
        self.clips = [sounds.hear(rng, [utterance], (0.2, 0.5), 0.5)[0] for utterance in said]

    @torch.no_grad()
    def take(self, model: Any, number: int | None = None, adapter: bool = True) -> float:
        """Word error rate over the first `number` clips."""
        was_training = model.training
        model.eval()
        texts = transcribe(model, self.clips[:number], adapter)
        model.train(was_training)
        return word_error_rate(self.references[:number], texts)
