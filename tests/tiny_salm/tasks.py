"""The toy tasks of the LLM mode: what a transcript of known words is asked, and the one right answer.

An instruction the model has never seen counts as a request for the summary, so that any prompt template
gets an answer that can be checked. Pure functions; knows no model.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence

import numpy as np

from tiny_salm.build import CORPUS
from tiny_salm.speech import WORDS

Words = Sequence[str]


def summary(words: Words) -> str:
    """The first and the last word."""
    return f"{words[0]} {words[-1]}"


def as_json(words: Words) -> str:
    """The summary as an object."""
    return json.dumps({"first": words[0], "last": words[-1]})


TASKS: dict[str, Callable[[Words], str]] = {
    "Summarize the following transcript:": summary,
    "Repeat the following:": " ".join,
    "What is the last word?": lambda words: words[-1],
    "Answer in JSON:": as_json,
}
LONGEST = {"Repeat the following:": 8}
"""Most words of a task's transcript in training; 24 for the others."""


def draw_easy(rng: np.random.Generator) -> tuple[str, str]:
    """A user's text and the answer: two of the tasks, few words. Copying is learnt here first."""
    instruction = "Repeat the following:" if rng.random() < 0.6 else "Summarize the following transcript:"
    words = [str(word) for word in rng.choice(WORDS, size=int(rng.integers(1, 8)))]
    return f"{instruction} {' '.join(words)}", TASKS[instruction](words)


def draw(rng: np.random.Generator) -> tuple[str, str]:
    """A user's text and the answer: every task, many words, strange instructions."""
    instruction = str(rng.choice(list(TASKS)))
    most = LONGEST.get(instruction, 24)
    words = [str(word) for word in rng.choice(WORDS, size=int(rng.integers(1, most + 1)))]
    answer = TASKS[instruction](words)
    tail = ""
    if instruction.startswith("Summarize") and rng.random() < 0.5:
        instruction = _gibberish(rng, 12)
        tail = "\n\n" + _gibberish(rng, 5) if rng.random() < 0.3 else ""
    gaps = rng.choice([" ", "\n"], size=len(words), p=[0.9, 0.1])
    transcript = "".join(word + gap for word, gap in zip(words, gaps, strict=True)).strip()
    return instruction + str(rng.choice([" ", "\n", "\n\n"])) + transcript + tail, answer


def corpus() -> list[str]:
    """What the tokenizer learns from: every word, with and without a blank before it, becomes one token."""
    frames = [*CORPUS, *TASKS, as_json(["one", "two"]), "<think>\n\n</think>\n\n"]
    return [*frames * 50, *[f"{word} {word}\n{word}" for word in WORDS] * 100]


def _gibberish(rng: np.random.Generator, most: int) -> str:
    letters = np.array(list("abcdefghijklmnopqrstuvwxyzetaoinshr"))
    made = []
    for _ in range(int(rng.integers(1, most + 1))):
        word = "".join(rng.choice(letters, size=int(rng.integers(2, 9))))
        made.append((word if word not in WORDS else "the") + str(rng.choice(["", "", "", ",", ".", ":"])))
    return " ".join(made).capitalize()
