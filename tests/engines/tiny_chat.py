"""A tiny causal language model with random weights, as a folder that transformers loads offline.

Its tokenizer has Qwen's control tokens and a chat template with a thinking switch. It understands
nothing; with large random weights its answers differ from prompt to prompt.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

CONTROL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
TEMPLATE = """\
{%- for turn in messages -%}
{{ '<|im_start|>' + turn.role + '\n' + turn.content + '<|im_end|>\n' }}
{%- endfor -%}
{%- if add_generation_prompt -%}
{{ '<|im_start|>assistant\n' }}
{%- if enable_thinking is defined and enable_thinking is false -%}
{{ '<think>\n\n</think>\n\n' }}
{%- endif -%}
{%- endif -%}"""


def build(folder: Path, seed: int = 0, template: str | None = TEMPLATE, **config: Any) -> Path:
    """Write tokenizer, configuration and weights; the same arguments give the same files."""
    import torch
    import transformers
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    pieces = Tokenizer(models.BPE({c: i for i, c in enumerate(alphabet)}, []))
    pieces.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    pieces.decoder = decoders.ByteLevel()
    pieces.add_special_tokens(CONTROL)
    pieces.add_tokens(["<think>", "</think>"])
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_object=pieces, eos_token="<|im_end|>", pad_token="<|endoftext|>", model_max_length=256
    )
    tokenizer.chat_template = template
    tokenizer.save_pretrained(folder)
    qwen: Any = transformers.Qwen3Config
    chosen = {
        "vocab_size": 264,
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "head_dim": 16,
        "intermediate_size": 64,
        "max_position_embeddings": 256,
        "initializer_range": 0.4,
        "tie_word_embeddings": True,
        "eos_token_id": tokenizer.convert_tokens_to_ids("<|im_end|>"),
    }
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = transformers.Qwen3ForCausalLM(qwen(**(chosen | config)))
    model.generation_config.repetition_penalty = 5.0
    model.generation_config.temperature = 0.2
    model.generation_config.do_sample = True
    model.save_pretrained(folder)
    return folder
