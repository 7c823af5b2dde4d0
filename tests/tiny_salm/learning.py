"""What the tiny SALM is taught: four losses, each of one batch, on the model's own modules.

Each method of `Lessons` draws its batch from the generator, and returns the loss and the share of right
tokens (or frames). Knows no optimizer and no schedule.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from tiny_salm import sounds, tasks
from tiny_salm.build import END_OF_TURN, TRANSCRIBE
from tiny_salm.speech import WORDS, Utterance

IGNORED = -100
NO_THINKING = "<think>\n\n</think>\n\n"
Loss = tuple[Tensor, float]
Audio = tuple[Tensor, Tensor]


def pad(clips: Sequence[NDArray[np.float32]]) -> Audio:
    """`(num_clips, num_samples)` with zeros at the ends, and the lengths."""
    lengths = torch.tensor([len(clip) for clip in clips])
    padded = torch.zeros(len(clips), int(lengths.max()))
    for row, clip in zip(padded, clips, strict=True):
        row[: len(clip)] = torch.from_numpy(clip)
    return padded, lengths


class Lessons:
    """Batches and losses for one model. `said` is the training speech."""

    def __init__(self, model: Any, rng: np.random.Generator, said: Sequence[Utterance]) -> None:
        self.model, self.rng = model, rng
        self._said = sorted(said, key=lambda utterance: len(utterance.samples))
        self._encode: Callable[[str], list[int]] = model.tokenizer.text_to_ids
        spoken = [self._encode(" " + word) for word in WORDS]
        if any(len(ids) != 1 for ids in [*spoken, *map(self._encode, WORDS)]):
            raise ValueError("every word must be one token")
        # The frames of a word learn the embedding of its token; silence that of a line break.
        self._classes = torch.tensor([*[ids[0] for ids in spoken], self._encode("\n")[0]])

    def text(self, size: int, easy: bool = False) -> Loss:
        """Base model alone (adapter off): the tasks of the LLM mode."""
        rows = []
        for _ in range(size):
            user, answer = (tasks.draw_easy if easy else tasks.draw)(self.rng)
            rows.append(self._row(user, answer, NO_THINKING if self.rng.random() < 0.5 else ""))
        with self.model.llm.disable_adapter():
            return self._predict(rows, None)

    def pseudo_audio(self, size: int, most_words: int = 10) -> Loss:
        """Adapter on: word embeddings, repeated and noisy, in the place of audio frames."""
        table = self._targets()
        scale = table.pow(2).mean().sqrt()
        rows, audio = [], []
        for _ in range(size):
            said = self.rng.integers(len(WORDS), size=int(self.rng.integers(1, most_words + 1)))
            frames = [sounds.BLANK] * int(self.rng.integers(0, 7))
            for word in said:
                frames += [sounds.BLANK] * int(self.rng.choice([1, 1, 1, 2, 6]))
                frames += [int(word)] * int(self.rng.integers(1, 7))
            frames += [sounds.BLANK] * int(self.rng.integers(1, 7))
            clean = table[torch.tensor(frames)]
            other = table[torch.from_numpy(self.rng.integers(len(table), size=len(frames)))]
            share = torch.rand(len(frames), 1) * 0.4 * (torch.rand(len(frames), 1) < 0.3)
            dirt = torch.randn_like(clean) * scale * torch.rand(len(frames), 1) * 0.6
            audio.append(clean * (1 - share) + other * share + dirt)
            rows.append(self._row(TRANSCRIBE, " ".join(WORDS[word] for word in said)))
        return self._predict(rows, audio)

    def frames(self, size: int) -> Loss:
        """Encoder and projection: each frame's word."""
        encoded, lengths, labels, _ = self._listen(size)
        return self._frame_loss(encoded, lengths, labels)

    def speech(self, size: int, frame_weight: float, long: bool = False) -> Loss:
        """The whole model on speech, as SALM is trained, plus a share of the frames' loss."""
        encoded, lengths, labels, texts = self._listen(size, long)
        audio = [row[:length] for row, length in zip(encoded, lengths, strict=True)]
        loss, right = self._predict([self._row(TRANSCRIBE, text) for text in texts], audio)
        return loss + frame_weight * self._frame_loss(encoded, lengths, labels)[0], right

    def _targets(self) -> Tensor:
        weight: Tensor = self.model.embed_tokens.weight
        return weight.detach()[self._classes]

    def _frame_loss(self, encoded: Tensor, lengths: Tensor, labels: Sequence[NDArray[np.int64]]) -> Loss:
        made = torch.cat([row[:length] for row, length in zip(encoded, lengths, strict=True)])
        wanted = torch.from_numpy(
            np.concatenate([x[:n] for x, n in zip(labels, lengths.tolist(), strict=True)])
        )
        table = self._targets()
        logits = 12 * functional.normalize(made, dim=-1) @ functional.normalize(table, dim=-1).T
        distance = (made - table[wanted]).pow(2).mean() / table.pow(2).mean()
        right = (logits.argmax(-1) == wanted).float().mean().item()
        return functional.cross_entropy(logits, wanted) + 0.1 * distance, right

    def _listen(
        self, size: int, long: bool = False
    ) -> tuple[Tensor, Tensor, list[NDArray[np.int64]], list[str]]:
        """Clips of about one length through the encoder; some are several utterances with pauses between.

        At most two and 10 words, or if `long` six and 24 words.
        """
        groups = [[u] for u in self._neighbours(size, len(self._said))]
        most_words, joins, share = (24, 5, 0.7) if long else (10, 1, 0.3)
        for _ in range(joins):
            if self.rng.random() < share:
                for group, more in zip(groups, self._neighbours(size, len(self._said) * 2 // 3), strict=True):
                    if sum(len(u.words) for u in [*group, more]) <= most_words:
                        group.append(more)
        heard = [sounds.hear(self.rng, group) for group in groups]
        signal, lengths = pad([samples for samples, _ in heard])
        perception = self.model.perception
        mels, mel_lengths = perception.preprocessor(input_signal=signal, length=lengths)
        for row in mels:
            width = int(self.rng.integers(0, 10))
            first = int(self.rng.integers(0, row.shape[0] - width))
            row[first : first + width] = 0
        encoded, frame_lengths = perception.encoder(audio_signal=mels, length=mel_lengths)
        texts = [" ".join(u.text for u in group) for group in groups]
        return perception.proj(encoded.transpose(1, 2)), frame_lengths, [x for _, x in heard], texts

    def _neighbours(self, size: int, among: int) -> list[Utterance]:
        first = int(self.rng.integers(0, among - size))
        return self._said[first : first + size]

    def _row(self, user: str, answer: str, thinking: str = "") -> tuple[list[int], list[int]]:
        """Token ids of one dialogue, and of the part to be learnt."""
        asked = f"<|im_start|>user\n{user}{END_OF_TURN}\n<|im_start|>assistant\n{thinking}"
        learnt = self._encode(answer) + self._encode(END_OF_TURN)
        return self._encode(asked) + learnt, learnt

    def _predict(self, rows: Sequence[tuple[list[int], list[int]]], audio: list[Tensor] | None) -> Loss:
        from nemo.collections.speechlm2.models.salm import replace_placeholders_and_build_targets

        model = self.model
        width = max(len(ids) for ids, _ in rows)
        ids = torch.tensor([[model.text_pad_id] * (width - len(ids)) + ids for ids, _ in rows])
        targets = torch.tensor([[IGNORED] * (width - len(learnt)) + learnt for _, learnt in rows])
        embedded = model.embed_tokens(ids.where(ids != model.audio_locator_tag_id, torch.tensor(0)))
        attended = ids != model.text_pad_id
        if audio is not None:
            embedded, targets, attended = replace_placeholders_and_build_targets(
                input_ids=ids,
                embeds=embedded,
                padding_id=model.text_pad_id,
                placeholder_id=model.audio_locator_tag_id,
                replacements=audio,
                target_ids=targets,
            )
        logits = model(embedded[:, :-1], attention_mask=attended[:, :-1])["logits"]
        wanted = targets[:, 1:]
        learnt = wanted != IGNORED
        right = (logits[learnt].argmax(-1) == wanted[learnt]).float().mean().item()
        return functional.cross_entropy(logits[learnt], wanted[learnt]), right
