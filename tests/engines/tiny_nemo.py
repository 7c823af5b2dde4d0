"""Tiny NeMo ASR models with random weights, saved as `.nemo` files: no network, seeded.

`ctc` writes characters, `tdt` word pieces with durations (as Parakeet does). They understand nothing;
their weights are large enough that different sounds give different words.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

LETTERS = [" ", *"abcdefghijklmnopqrstuvwxyz", "'"]
CORPUS = ["the quick brown fox jumps over the lazy dog.", "who is there? it is me.", "one two three four"]
_WIDTH = 32
DURATIONS = [0, 1, 2, 3, 4]


def _common() -> dict[str, Any]:
    return {
        "sample_rate": 16_000,
        "train_ds": None,
        "validation_ds": None,
        "preprocessor": {
            "_target_": "nemo.collections.asr.modules.AudioToMelSpectrogramPreprocessor",
            "sample_rate": 16_000,
            "normalize": "per_feature",
            "window_size": 0.025,
            "window_stride": 0.01,
            "window": "hann",
            "features": 40,
            "n_fft": 512,
            "log": True,
            "frame_splicing": 1,
            "dither": 1e-5,
            "pad_to": 0,
        },
        "encoder": {
            "_target_": "nemo.collections.asr.modules.ConformerEncoder",
            "feat_in": 40,
            "feat_out": -1,
            "n_layers": 1,
            "d_model": _WIDTH,
            "n_heads": 2,
            "subsampling": "dw_striding",
            "subsampling_factor": 8,
            "subsampling_conv_channels": 16,
            "ff_expansion_factor": 2,
            "self_attention_model": "rel_pos",
            "att_context_size": [-1, -1],
            "xscaling": False,
            "untie_biases": True,
            "pos_emb_max_len": 500,
            "conv_kernel_size": 5,
            "dropout": 0.1,
            "dropout_pre_encoder": 0.1,
            "dropout_emb": 0.0,
            "dropout_att": 0.1,
        },
        "optim": {"name": "adamw", "lr": 1e-3},
    }


def ctc(path: Path, seed: int = 0) -> Path:
    """A FastConformer with a character CTC head."""
    from nemo.collections.asr.models import EncDecCTCModel

    decoder = {
        "_target_": "nemo.collections.asr.modules.ConvASRDecoder",
        "feat_in": _WIDTH,
        "num_classes": len(LETTERS),
        "vocabulary": LETTERS,
    }
    config = {**_common(), "decoder": decoder, "labels": LETTERS}
    return _saved(EncDecCTCModel, config, path, seed, 3.0, _undecided)


def _undecided(model: Any) -> None:
    """No letter has a start over the others: random weights would hear one and the same in everything."""
    import torch

    model.eval()
    model.preprocessor.featurizer.dither = 0.0
    noise = torch.randn(1, 80_000, generator=torch.Generator().manual_seed(0))
    sound, length = model.preprocessor(input_signal=noise, length=torch.tensor([80_000]))
    encoded, _ = model.encoder(audio_signal=sound, length=length)  # (1, width, frames)
    [layer] = model.decoder.decoder_layers
    layer.bias.copy_(-(layer.weight[:, :, 0] @ encoded[0].mean(1)))


def tdt(path: Path, seed: int = 0) -> Path:
    """A FastConformer with a token-and-duration transducer over word pieces."""
    from nemo.collections.asr.models import EncDecRNNTBPEModel

    tokenizer = _word_pieces(path.parent / "tokenizer")
    modules = "nemo.collections.asr.modules"
    config = {
        **_common(),
        "tokenizer": {"dir": str(tokenizer), "type": "bpe"},
        "model_defaults": {
            "enc_hidden": _WIDTH,
            "pred_hidden": 16,
            "joint_hidden": 16,
            "tdt_durations": DURATIONS,
            "num_tdt_durations": len(DURATIONS),
        },
        "decoder": {
            "_target_": f"{modules}.RNNTDecoder",
            "normalization_mode": None,
            "random_state_sampling": False,
            "blank_as_pad": True,
            "prednet": {"pred_hidden": 16, "pred_rnn_layers": 1, "t_max": None, "dropout": 0.0},
        },
        "joint": {
            "_target_": f"{modules}.RNNTJoint",
            "log_softmax": None,
            "preserve_memory": False,
            "fuse_loss_wer": False,
            "num_extra_outputs": len(DURATIONS),
            "jointnet": {"joint_hidden": 16, "activation": "relu", "dropout": 0.0},
        },
        "decoding": {
            "strategy": "greedy_batch",
            "model_type": "tdt",
            "durations": DURATIONS,
            "greedy": {"max_symbols": 5},
        },
        "loss": {"loss_name": "tdt", "tdt_kwargs": {"fastemit_lambda": 0.0, "durations": DURATIONS}},
    }
    return _saved(EncDecRNNTBPEModel, config, path, seed, 4.0)


def _saved(
    kind: Any,
    config: dict[str, Any],
    path: Path,
    seed: int,
    scale: float,
    change: Callable[[Any], None] | None = None,
) -> Path:
    import torch
    from omegaconf import OmegaConf

    path.parent.mkdir(parents=True, exist_ok=True)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = kind(cfg=OmegaConf.create(config))
        with torch.no_grad():
            for name, weight in model.named_parameters():
                if "decoder" in name or "joint" in name:
                    weight.mul_(scale)
            if change is not None:
                change(model)
    model.save_to(str(path))
    return path


def _word_pieces(folder: Path, size: int = 48) -> Path:
    import sentencepiece

    folder.mkdir(parents=True, exist_ok=True)
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(CORPUS * 4),
        model_prefix=str(folder / "tokenizer"),
        vocab_size=size,
        model_type="bpe",
        character_coverage=1.0,
        bos_id=-1,
        eos_id=-1,
        minloglevel=2,
    )
    pieces = sentencepiece.SentencePieceProcessor(model_file=str(folder / "tokenizer.model"))
    words = [pieces.id_to_piece(i) for i in range(pieces.get_piece_size())]
    (folder / "vocab.txt").write_text("\n".join(words) + "\n", encoding="utf-8")
    return folder


def canary(path: Path, seed: int = 3) -> Path:
    """An attention model that is told its language by a prompt of control tokens, as Canary is.

    With this seed some sounds end, others loop until the limit, and control tokens get into the text.
    """
    from nemo.collections.asr.models import EncDecMultiTaskModel
    from nemo.collections.common.tokenizers.canary_tokenizer import CanaryTokenizer

    english, control = _word_pieces(path.parent / "english", 51), path.parent / "control"
    CanaryTokenizer.build_special_tokenizer(["en", "de", "transcribe", "translate", "pnc", "nopnc"], control)
    # 64 tokens together: the head is rounded up to eights, and random weights would choose the others, too.
    decoder = {
        "_target_": "nemo.collections.asr.modules.transformer.get_nemo_transformer",
        "model_name": None,
        "pretrained": False,
        "encoder": None,
        "pre_ln_final_layer_norm": True,
        "config_dict": {
            "max_sequence_length": 128,
            "num_token_types": 0,
            "embedding_dropout": 0.1,
            "learn_positional_encodings": False,
            "hidden_size": _WIDTH,
            "inner_size": 64,
            "num_layers": 1,
            "num_attention_heads": 2,
            "ffn_dropout": 0.1,
            "attn_score_dropout": 0.1,
            "attn_layer_dropout": 0.1,
            "hidden_act": "relu",
            "pre_ln": True,
            "vocab_size": None,
        },
    }
    slots = {"source_lang": "<|en|>", "task": "<|transcribe|>", "target_lang": "<|en|>", "pnc": "<|pnc|>"}
    config = {
        **_common(),
        "prompt_format": "canary",
        "restore_timestamps_model": False,
        "prompt_defaults": [{"role": "user", "slots": slots}],
        "model_defaults": {"asr_enc_hidden": _WIDTH, "lm_enc_hidden": _WIDTH, "lm_dec_hidden": _WIDTH},
        "tokenizer": {
            "dir": None,
            "type": "agg",
            "langs": {
                "spl_tokens": {"dir": str(control), "type": "bpe"},
                "en": {"dir": str(english), "type": "bpe"},
            },
            "custom_tokenizer": {
                "_target_": "nemo.collections.common.tokenizers.canary_tokenizer.CanaryTokenizer",
                "tokenizers": None,
            },
        },
        "transf_decoder": decoder,
        "head": {
            "_target_": "nemo.collections.asr.parts.submodules.token_classifier.TokenClassifier",
            "num_layers": 1,
            "activation": "relu",
            "log_softmax": True,
            "hidden_size": _WIDTH,
            "num_classes": None,
            "dropout": 0.0,
            "use_transformer_init": True,
        },
        "decoding": {"strategy": "beam", "beam": {"beam_size": 1, "max_generation_delta": 20}},
        "loss": {
            "_target_": "nemo.collections.common.losses.smoothed_cross_entropy.SmoothedCrossEntropyLoss",
            "label_smoothing": 0.0,
            "pad_id": None,
        },
    }
    return _saved(EncDecMultiTaskModel, config, path, seed, 4.0)
