"""A tiny SALM with random weights, as a self-contained bundle on disk: no network, seconds, seeded.

`build` returns the folder; it holds what `SALM.from_pretrained(folder, strict=True)` needs offline and the
same keys, token names and layout as a bundle of the real model: `config.json`, `model.safetensors`, the
tokenizer, `llm_backbone/config.json`. It knows nothing of training: the weights understand nothing.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

AUDIO_TAG = "<|audioplaceholder|>"
"""Added to the tokenizer by SALM at run time, as with the real model: not in the files."""
TRANSCRIBE = f"Transcribe the following: {AUDIO_TAG}"
END_OF_TURN, PADDING = "<|im_end|>", "<|endoftext|>"
SPECIAL = [PADDING, "<|im_start|>", END_OF_TURN]
# Qwen3 adds these as ordinary tokens: they survive skip_special_tokens.
THINK = ["<think>", "</think>"]
BACKBONE = "llm_backbone"
TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja")
CORPUS = (
    "Transcribe the following: ",
    "user\nassistant\nsystem\n",
    "Summarize the following transcript in one sentence. What is the main topic of the call?",
)
CHAT_TEMPLATE = """\
{%- for turn in messages -%}
{{ '<|im_start|>' + turn.role + '\n' + turn.content + '<|im_end|>\n' }}
{%- endfor -%}
{%- if add_generation_prompt -%}
{{ '<|im_start|>assistant\n' }}
{%- if enable_thinking is defined and not enable_thinking -%}
{{ '<think>\n\n</think>\n\n' }}
{%- endif -%}
{%- endif -%}"""
# Letters with at most one sign before them, single digits, signs, line breaks, blanks: Qwen's way to split.
SPLIT = r"[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"


@dataclass(frozen=True, kw_only=True)
class Size:
    """What `build` lets a caller choose; the defaults make 0.3 M parameters, 1.5 MB."""

    hidden: int = 64
    layers: int = 2
    heads: int = 4
    kv_heads: int = 2
    head_dim: int = 16
    feed_forward: int = 128
    max_positions: int = 40_960
    vocabulary: int = 512
    """At most so many tokens; the embedding gets 8 to 15 rows more, because SALM never resizes it."""
    rows: int | None = None
    """Rows of the embedding, where it is to have more than that."""
    mels: int = 128
    encoder_width: int = 64
    encoder_layers: int = 2
    encoder_heads: int = 4
    encoder_channels: int = 32
    encoder_dropout: float = 0.1
    lora_rank: int = 4
    lora_b: float = 0.5
    """Standard deviation of lora_B. Zero (as PEFT starts) would make the adapter do nothing."""
    initializer_range: float = 0.3
    """With the usual 0.02 every input gives one and the same token."""
    dtype: str = "float32"


def build(folder: Path | str, seed: int = 0, *, corpus: Iterable[str] = CORPUS, **size: Any) -> Path:
    """Writes the bundle to `folder` (replaced if it is there) and returns its path.

    `size` overrides fields of `Size`; `corpus` is what the tokenizer learns its merges from. The same
    arguments give the same files.
    """
    os.environ["HF_HUB_OFFLINE"] = "1"
    import torch
    from nemo.collections.speechlm2.models import SALM

    chosen = replace(Size(), **size)
    folder = Path(folder).resolve()
    shutil.rmtree(folder, ignore_errors=True)
    backbone = folder / BACKBONE
    backbone.mkdir(parents=True)
    tokenizer = _tokenizer(corpus, chosen.vocabulary)
    tokenizer.save_pretrained(folder)
    _language_model(tokenizer, chosen).save_pretrained(backbone)
    config = _config(chosen)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = SALM({**config, "pretrained_llm": str(backbone), "tokenizer_path": str(folder)})
        for name, weight in model.named_parameters():
            if "lora_B" in name:
                torch.nn.init.normal_(weight, std=chosen.lora_b)
        model.to(getattr(torch, chosen.dtype))
    save(model, folder, config)
    return folder


def save(model: Any, folder: Path, config: dict[str, Any]) -> None:
    """Writes weights and configuration beside a tokenizer; other users can read them."""
    from safetensors.torch import save_file

    # The head is the embedding (tied): one of the two names, as in the real file.
    weights = {name: w.contiguous() for name, w in model.state_dict().items() if "lm_head" not in name}
    save_file(weights, str(folder / "model.safetensors"), metadata={"format": "pt"})
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    for file in folder.rglob("*"):
        file.chmod(0o755 if file.is_dir() else 0o644)


def copy_frame(source: Path, folder: Path) -> dict[str, Any]:
    """Copies everything of a bundle but the weights; returns its configuration."""
    (folder / BACKBONE).mkdir(parents=True, exist_ok=True)
    for name in (*TOKENIZER_FILES, "config.json", f"{BACKBONE}/config.json"):
        shutil.copyfile(source / name, folder / name)
    config: dict[str, Any] = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    return config


def _tokenizer(corpus: Iterable[str], vocabulary: int) -> Any:
    from tokenizers import (
        AddedToken,
        Regex,
        Tokenizer,
        decoders,
        models,
        normalizers,
        pre_tokenizers,
        trainers,
    )
    from transformers import PreTrainedTokenizerFast

    pieces = Tokenizer(models.BPE())
    pieces.normalizer = normalizers.NFC()
    pieces.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(SPLIT), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    pieces.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary - len(SPECIAL) - len(THINK),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    pieces.train_from_iterator(corpus, trainer)
    pieces.add_special_tokens(SPECIAL)
    pieces.add_tokens([AddedToken(token, special=False, normalized=False) for token in THINK])
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=pieces,
        eos_token=END_OF_TURN,
        pad_token=PADDING,
        clean_up_tokenization_spaces=False,
        model_max_length=40_960,
    )
    tokenizer.chat_template = CHAT_TEMPLATE
    return tokenizer


def _language_model(tokenizer: Any, size: Size) -> Any:
    from transformers import Qwen3Config

    rows = size.rows or (len(tokenizer) + 15) // 8 * 8
    return Qwen3Config(
        architectures=["Qwen3ForCausalLM"],
        vocab_size=rows,
        hidden_size=size.hidden,
        num_hidden_layers=size.layers,
        num_attention_heads=size.heads,
        num_key_value_heads=size.kv_heads,
        head_dim=size.head_dim,
        intermediate_size=size.feed_forward,
        max_position_embeddings=size.max_positions,
        rope_theta=1e6,
        rms_norm_eps=1e-6,
        tie_word_embeddings=True,
        attention_bias=False,
        initializer_range=size.initializer_range,
        eos_token_id=tokenizer.convert_tokens_to_ids(END_OF_TURN),
        pad_token_id=tokenizer.convert_tokens_to_ids(PADDING),
        bos_token_id=None,
    )


def _config(size: Size) -> dict[str, Any]:
    """The keys of the real model's config.json, with no path of this machine in it."""
    return {
        "pretrained_llm": BACKBONE,
        "pretrained_asr": "local/none",
        "pretrained_weights": False,
        "prompt_format": "qwen",
        "audio_locator_tag": AUDIO_TAG,
        "freeze_params": [r"^llm\..+$", r"^embed_tokens\..+$"],
        "prevent_freeze_params": [r"^.+\.lora_.+$"],
        "lora": {
            "task_type": "CAUSAL_LM",
            "r": size.lora_rank,
            "lora_alpha": 2 * size.lora_rank,
            "lora_dropout": 0.01,
            "target_modules": ["q_proj", "v_proj"],
        },
        "perception": _perception(size),
        "torch_dtype": "bfloat16",
    }


def _perception(size: Size) -> dict[str, Any]:
    modules = "nemo.collections.speechlm2.modules.perception"
    return {
        "target": f"{modules}.AudioPerceptionModule",
        "output_dim": size.hidden,
        "modality_adapter": {"_target_": f"{modules}.IdentityConnector", "d_model": size.encoder_width},
        "preprocessor": {
            "_target_": "nemo.collections.asr.modules.AudioToMelSpectrogramPreprocessor",
            "sample_rate": 16_000,
            "normalize": "per_feature",
            "window_size": 0.025,
            "window_stride": 0.01,
            "window": "hann",
            "features": size.mels,
            "n_fft": 512,
            "log": True,
            "frame_splicing": 1,
            "dither": 1e-5,
            "pad_to": 0,
            "pad_value": 0.0,
        },
        "encoder": {
            "_target_": "nemo.collections.asr.modules.ConformerEncoder",
            "feat_in": size.mels,
            "feat_out": -1,
            "n_layers": size.encoder_layers,
            "d_model": size.encoder_width,
            "n_heads": size.encoder_heads,
            "subsampling": "dw_striding",
            "subsampling_factor": 8,
            "subsampling_conv_channels": size.encoder_channels,
            "causal_downsampling": False,
            "reduction": None,
            "reduction_factor": 1,
            "ff_expansion_factor": 4,
            "self_attention_model": "rel_pos",
            "att_context_size": [-1, -1],
            "xscaling": False,
            "untie_biases": True,
            "pos_emb_max_len": 5000,
            "conv_kernel_size": 9,
            "conv_norm_type": "batch_norm",
            "conv_context_size": None,
            "dropout": size.encoder_dropout,
            "dropout_pre_encoder": size.encoder_dropout,
            "dropout_emb": 0.0,
            "dropout_att": size.encoder_dropout,
        },
    }
