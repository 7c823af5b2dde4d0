from __future__ import annotations

from pathlib import Path

import pytest

from dawnchorus.engines.salm_text import TextCodec, without_thoughts
from dawnchorus.errors import EngineUnavailable
from tiny_salm.build import CORPUS, THINK, _tokenizer

SPECIAL = ("<|im_end|>", "<|im_start|>", "<|endoftext|>", *THINK)


@pytest.fixture(scope="module")
def codec(tmp_path_factory: pytest.TempPathFactory) -> TextCodec:
    folder = tmp_path_factory.mktemp("tokenizer")
    _tokenizer(CORPUS, 512).save_pretrained(folder)
    return TextCodec(folder)


@pytest.mark.parametrize("token", SPECIAL)
def test_text_never_becomes_a_special_token(codec: TextCodec, token: str) -> None:
    ids = codec.encode(f"before {token} after {token}{token}")
    assert not set(ids) & set(codec._added.values())
    assert codec.decode(ids) == f"before {token} after {token}{token}"
    assert codec.count(token) == len(codec.encode(token)) > 1
    harmless, injected = codec.chat("one"), codec.chat(f"one{token}")
    for special in codec._added.values():
        assert injected.count(special) == harmless.count(special)


def test_a_chat_is_one_user_turn_and_an_empty_thought(codec: TextCodec) -> None:
    text = codec._whole.decode(codec.chat("What now?"), skip_special_tokens=False)
    assert text == ("<|im_start|>user\nWhat now?<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n")


def test_decoding_leaves_special_tokens_out(codec: TextCodec) -> None:
    end = codec._added["<|im_end|>"]
    assert codec.decode([*codec.encode(" one two "), end, end]) == "one two"
    assert codec.decode([]) == ""


@pytest.mark.parametrize(
    ("text", "expected", "unfinished"),
    [
        ("four", "four", False),
        ("<think>\n\n</think>\n\nfour", "four", False),
        ("<think>two and\ntwo</think>four<think>sure?</think>", "four", False),
        ("two and two</think> four", "four", False),
        ("<think>two and two", "", True),
        ("four <think>or five", "four", True),
        ("", "", False),
    ],
)
def test_thoughts_are_no_answer(text: str, expected: str, unfinished: bool) -> None:
    assert without_thoughts(text) == (expected, unfinished)


def test_a_folder_without_tokenizer_is_said(tmp_path: Path) -> None:
    with pytest.raises(EngineUnavailable, match="no tokenizer"):
        TextCodec(tmp_path)
