from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

from dawnchorus.engines.chat import Frame, Vocabulary, answer, frame, padded, too_long, without_thoughts
from dawnchorus.errors import EngineUnavailable

SPECIAL = ["<|im_start|>", "<|im_end|>", "<|endoftext|>"]
TAGS = ["<think>", "</think>"]


def byte_level() -> Tokenizer:
    pieces = Tokenizer(models.BPE())
    pieces.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    pieces.decoder = decoders.ByteLevel()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(vocab_size=300, initial_alphabet=alphabet, show_progress=False)
    pieces.train_from_iterator(["user\nassistant\nsummarise the following call"], trainer)
    pieces.add_special_tokens(SPECIAL)
    pieces.add_tokens([*TAGS, "  "])
    return pieces


def unigram() -> Tokenizer:
    """A model that knows its control tokens as ordinary pieces, as sentencepiece models do."""
    letters = [(c, -3.0) for c in "abcdefghijklmnopqrstuvwxyz<>|/_ ▁"]
    pieces = Tokenizer(models.Unigram([("<unk>", 0.0), *((s, 0.0) for s in SPECIAL), *letters], 0, False))
    pieces.pre_tokenizer = pre_tokenizers.Split(Regex(r"\s+"), "isolated")
    pieces.add_special_tokens(["<unk>", *SPECIAL])
    return pieces


TOKENIZERS = {"byte_level": byte_level(), "unigram": unigram()}
WORDS = st.sampled_from([*SPECIAL, *TAGS, "<|", "im_end", "|>", "call", " ", "\n", "é", "<unk>"])


@pytest.mark.parametrize("name", list(TOKENIZERS))
@given(text=st.lists(WORDS, max_size=12).map("".join) | st.text(max_size=30))
@settings(deadline=None, max_examples=60)
def test_user_text_never_controls(name: str, text: str) -> None:
    tokenizer = TOKENIZERS[name]
    ids = Vocabulary(tokenizer.to_str()).content(text)
    assert {tokenizer.token_to_id(t) for t in SPECIAL}.isdisjoint(ids)


@given(st.lists(WORDS | st.text(max_size=5), max_size=12).map("".join))
@settings(deadline=None, max_examples=60)
def test_user_text_is_kept_to_the_last_character(text: str) -> None:
    vocabulary = Vocabulary(TOKENIZERS["byte_level"].to_str())
    assert vocabulary.text(vocabulary.content(text)) == text.encode("utf-8", "replace").decode()


def test_the_template_controls_and_blanks_stay_whole() -> None:
    vocabulary, tokenizer = Vocabulary(byte_level().to_str()), byte_level()
    assert vocabulary.template("<|im_end|>") == [tokenizer.token_to_id("<|im_end|>")]
    assert vocabulary.content("  ") == [tokenizer.token_to_id("  ")]
    assert vocabulary.num_tokens("") == 0


def test_truncation_and_padding_of_the_file_do_not_count(tmp_path: Path) -> None:
    tokenizer = byte_level()
    tokenizer.enable_truncation(4)
    tokenizer.enable_padding(length=64)
    (tmp_path / "tokenizer.json").write_text(tokenizer.to_str())
    assert Vocabulary.from_file(tmp_path / "tokenizer.json").num_tokens("xyzxyzxyz") == 9


@pytest.mark.parametrize("content", ["{", "{}", "null", json.dumps({"model": {"type": "Nothing"}})])
def test_what_is_no_tokenizer_is_said(tmp_path: Path, content: str) -> None:
    (tmp_path / "tokenizer.json").write_text(content)
    with pytest.raises(EngineUnavailable, match="no tokenizer"):
        Vocabulary.from_file(tmp_path / "tokenizer.json")
    with pytest.raises(EngineUnavailable, match="no tokenizer"):
        Vocabulary.from_file(tmp_path / "none.json")


def test_the_frame_holds_what_stands_around_the_turn() -> None:
    vocabulary, tokenizer = Vocabulary(byte_level().to_str()), byte_level()
    found = frame(vocabulary, lambda turn: f"<|im_start|>user\n{turn}<|im_end|>\n<|im_start|>assistant\n")
    start, end = (tokenizer.token_to_id(t) for t in SPECIAL[:2])
    prompt = found.prompt(vocabulary.content("a<|im_end|>b"))
    assert (prompt[0], prompt.count(start), prompt.count(end)) == (start, 2, 1)
    assert len(found) == len(prompt) - len(vocabulary.content("a<|im_end|>b"))
    assert not found.thinks
    assert frame(vocabulary, lambda turn: f"{turn}<|im_end|><think>\n").thinks
    assert not frame(vocabulary, lambda turn: f"{turn}<|im_end|><think>\n\n</think>\n").thinks


@pytest.mark.parametrize("template", ["nothing", "{0} and {0}"])
def test_a_template_without_the_turn_is_refused(template: str) -> None:
    with pytest.raises(EngineUnavailable, match="what the user says"):
        frame(Vocabulary(byte_level().to_str()), template.format)


def test_a_model_without_template_gets_its_own_beginning() -> None:
    from tokenizers import processors

    tokenizer = byte_level()
    start, end = (tokenizer.token_to_id(t) for t in SPECIAL[:2])
    assert frame(Vocabulary(tokenizer.to_str()), None) == Frame((), ())
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<|im_start|> $A <|im_end|>", special_tokens=[("<|im_start|>", start), ("<|im_end|>", end)]
    )
    assert frame(Vocabulary(tokenizer.to_str()), None) == Frame((start,), ())


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("<think>\n\n</think>\n\nYes.", "Yes."),
        ("Yes.", "Yes."),
        ("so then</think>Yes.", "Yes."),
        ("<think>a</think>Yes. <think>b</think>No.", "Yes. No."),
        ("<think>a<think>b</think>Yes.", "Yes."),
        ("<think>and so on", None),
        ("Yes. <think>and", None),
        ("", ""),
    ],
)
def test_thoughts_are_taken_out(text: str, expected: str | None) -> None:
    assert without_thoughts(text) == expected


def test_special_tags_of_thoughts_are_seen_as_well() -> None:
    tokenizer = byte_level()
    tokenizer.add_special_tokens(TAGS)
    vocabulary = Vocabulary(tokenizer.to_str())
    said = vocabulary.text(vocabulary.template("<think>no</think>yes<|im_end|>"))
    assert without_thoughts(said) == "yes"


def test_answers() -> None:
    assert (answer("Yes.", 2, True, -0.5).text, answer("Yes.", 2, True).finish_reason) == ("Yes.", "stop")
    assert answer("Yes.", 2, False).finish_reason == "length"
    assert answer("<think></think> ", 2, True).finish_reason == "empty"
    failed = answer("<think>hm", 9, False)
    assert failed.error is not None
    assert (failed.finish_reason, failed.error.kind, failed.error.stage) == (
        "error",
        "unfinished_thought",
        "answer",
    )


def test_what_does_not_fit_is_said() -> None:
    assert too_long(10, 6, 16) is None
    found = too_long(11, 6, 16)
    assert found is not None
    assert found.error is not None
    assert found.error.kind == "too_long"


def test_padding_is_on_the_left() -> None:
    assert padded([[1, 2, 3], [4]], 0) == ([[1, 2, 3], [0, 0, 4]], [[1, 1, 1], [0, 0, 1]])
