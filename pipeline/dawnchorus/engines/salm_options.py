"""What the salm engine can be told, and whose model it runs. Plain values."""

from __future__ import annotations

from typing import Any

from dawnchorus.config import EngineConfig
from dawnchorus.engines.base import Licence
from dawnchorus.engines.salm_files import SalmFiles, read_json
from dawnchorus.errors import ConfigError

OPTIONS: dict[str, Any] = {
    "decoder": "eager",
    "prompt": "Transcribe the following: ",
    "tokens_per_second": 6.0,
    "tokens_extra": 16,
    "max_tokens": 256,
    "silence_dbfs": -70.0,
    "decoder_seconds": None,
    "batch_tokens": 32_768,
    "context_tokens": None,
}
CHANGE_TEXT = ("prompt", "tokens_per_second", "tokens_extra", "max_tokens", "silence_dbfs")
_KINDS: dict[str, type] = {"decoder_seconds": float, "context_tokens": int}
_POSITIVE = ("tokens_per_second", "max_tokens", "decoder_seconds", "batch_tokens", "context_tokens")
_DECODERS = ("eager", "static", "continuous")
_DTYPES = ("auto", "float32", "bfloat16", "float16")
LICENCE = Licence(
    "CC-BY-4.0",
    "https://creativecommons.org/licenses/by/4.0/",
    "Canary-Qwen-2.5B by NVIDIA, https://huggingface.co/nvidia/canary-qwen-2.5b, licensed under CC BY 4.0,"
    " https://creativecommons.org/licenses/by/4.0/. Changes made: the adapter (LoRA) is merged into the"
    " language model's weights for transcription and left out for LLM mode; recordings are transcribed in"
    " chunks. It builds on Qwen3-1.7B by the Qwen team (Apache-2.0) and on Canary-1B-Flash by NVIDIA"
    " (CC BY 4.0).",
)
CHATML_START = "<|im_start|>"
_CANARY_ENCODER = "nvidia/canary-1b-flash"


def is_canary(files: SalmFiles) -> bool:
    """Whether a checkpoint is Canary-Qwen, under whatever name: its encoder is one of a kind."""
    return read_json(files.config).get("pretrained_asr") == _CANARY_ENCODER


def chatml(turn: str) -> str:
    """A user turn and the opening of an answer without thoughts, as Qwen3's template writes it."""
    return f"{CHATML_START}user\n{turn}<|im_end|>\n{CHATML_START}assistant\n<think>\n\n</think>\n\n"


def options_of(config: EngineConfig) -> dict[str, Any]:
    """Every option with its value.

    Raises:
        ConfigError: an option that this engine does not have, or a wrong value.
    """
    unknown = sorted(set(config.options) - set(OPTIONS))
    if unknown:
        raise ConfigError(f"The salm engine has no option {unknown[0]!r}.", f"It has: {', '.join(OPTIONS)}.")
    options = OPTIONS | config.options
    for key, chosen, allowed in (
        ("options.decoder", options["decoder"], _DECODERS),
        ("dtype", config.dtype, _DTYPES),
    ):
        if chosen not in allowed:
            raise ConfigError(f"engine.{key} = {chosen!r} is unknown.", f"One of: {', '.join(allowed)}.")
    for name, value in options.items():
        if value is None and OPTIONS[name] is None:
            continue
        kind = _KINDS.get(name, type(OPTIONS[name]))
        if kind is float and type(value) is int:
            value = float(value)
        right = isinstance(value, kind) and not isinstance(value, bool)
        if not right or (name in _POSITIVE and value <= 0):
            wanted = {str: "text", int: "a whole number", float: "a number"}[kind]
            above = " above zero" if name in _POSITIVE else ""
            raise ConfigError(f"engine.options.{name} = {value!r} is wrong.", f"It is {wanted}{above}.")
    return options
