"""A SALM's parts on their device: speech encoder, language model, adapter on or off. Imports NeMo.

`load` builds NeMo's `SALM` without weights (parameters on the meta device, buffers computed as usual) and
reads the file tensor by tensor straight to device and type, so that neither a second copy nor float32
weights are ever in memory: `SALM.from_pretrained` takes 10 GB of host memory for 5 GB of bfloat16; here a
file of that size and its names took 0.9 GB and 2.4 s on a CPU. Every tensor has to be there.

The adapter (LoRA on q and v) is kept as two whole weights per layer, with it and without, and a switch of
pointers: merging and unmerging in bfloat16 changed a quarter of the weights in 20 rounds.
"""

from __future__ import annotations

import contextlib
import logging
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from dawnchorus.engines.base import Waveform
from dawnchorus.engines.salm_files import INSTALL, SalmFiles, read_json
from dawnchorus.errors import EngineUnavailable

if TYPE_CHECKING:
    import torch

    from dawnchorus.engines.salm_continuous import ContinuousDecoder

_ADAPTER = re.compile(r"(.+)\.lora_([AB])\.default\.weight")
_HEAD = "llm.lm_head.weight"
_EMBEDDING = "embed_tokens.weight"
# Mel filters stay in float32: NeMo computes features in it, whatever the model's type.
_FEATURES = "perception.preprocessor."
_LORA_KEYS = frozenset({"r", "lora_alpha", "lora_dropout", "target_modules", "task_type", "inference_mode"})
# Places that NeMo would load more weights from, partly by pickle.
_NOT_FOLLOWED = frozenset({"pretrained_s2s_model", "pretrained_perception_from_s2s", "init_from_checkpoint"})
_SHORTEST_SAMPLES = 1600  # 0.1 s; one mel frame is an error on a GPU, none is an empty audio


class SalmModel:
    """The parts of a loaded SALM. Tensors live on `device` in `dtype`."""

    def __init__(self, salm: Any, adapter: Sequence[tuple[Any, torch.Tensor, torch.Tensor]]) -> None:
        self.perception = salm.perception
        self.llm = salm.llm
        # For good: SALM.generate attaches and removes it around every call, which no thread survives.
        self.llm.model.embed_tokens = salm.embed_tokens
        self.pad_id = int(salm.text_pad_id)
        self.end_ids = sorted({int(salm.text_eos_id), self.pad_id})
        self._salm = salm
        self._adapter = adapter
        self._continuous: ContinuousDecoder | None = None

    @property
    def device(self) -> torch.device:
        """Where the language model is."""
        device: torch.device = self.llm.device
        return device

    def prompt(self, text: str) -> tuple[list[int], list[int]]:
        """Token ids before and after the audio, for a user turn of `text` and an audio."""
        from nemo.collections.common.prompts import PromptFormatter

        formatter = PromptFormatter.resolve(self._salm.cfg.prompt_format)(self._salm.tokenizer)
        turns = [{"role": "user", "content": f"{text}{self._salm.audio_locator_tag}"}]
        ids: list[int] = formatter.encode_dialog(turns=turns)["input_ids"].tolist()
        at = ids.index(self._salm.audio_locator_tag_id)
        return ids[:at], ids[at + 1 :]

    def encode(self, waveforms: Sequence[Waveform]) -> list[torch.Tensor]:
        """Audio tokens of each waveform, `(num_frames, hidden)`; 12.5 frames a second for Canary-Qwen."""
        import torch

        lengths = [max(len(w), _SHORTEST_SAMPLES) for w in waveforms]
        audio = np.zeros((len(waveforms), max(lengths)), np.float32)
        for row, waveform in zip(audio, waveforms, strict=True):
            row[: len(waveform)] = waveform
        with torch.inference_mode():
            frames, counts = self.perception(
                input_signal=torch.from_numpy(audio).to(self.device),
                input_signal_length=torch.tensor(lengths, device=self.device),
            )
        return [f[:n] for f, n in zip(frames, counts.tolist(), strict=True)]

    def embed(self, ids: Sequence[int]) -> torch.Tensor:
        """Embeddings of token ids, `(num_ids, hidden)`."""
        import torch

        with torch.inference_mode():
            found: torch.Tensor = self.llm.model.embed_tokens(torch.tensor(ids, device=self.device))
        return found

    def continuous(self) -> ContinuousDecoder:
        """The continuous decoder of this model, made when it is first asked for."""
        if self._continuous is None:
            from dawnchorus.engines.salm_continuous import ContinuousDecoder

            self._continuous = ContinuousDecoder(self.llm, self.end_ids, self.pad_id)
        return self._continuous

    def close(self) -> None:
        """Free what outlives a call."""
        if self._continuous is not None:
            self._continuous.close()

    @contextlib.contextmanager
    def without_adapter(self) -> Iterator[None]:
        """The language model as it was before it learned to listen."""
        self._switch(False)
        try:
            yield
        finally:
            self._switch(True)

    def _switch(self, merged: bool) -> None:
        for linear, base, full in self._adapter:
            linear.weight.data = full if merged else base


def load(files: SalmFiles, device: str, dtype: str) -> SalmModel:
    """The checkpoint as parts.

    Raises:
        EngineUnavailable: NeMo is missing, or the checkpoint does not fit: names the tensors.
    """
    import torch

    kind: torch.dtype = getattr(torch, dtype)
    config = {k: v for k, v in read_json(files.config).items() if k not in _NOT_FOLLOWED}
    lora = config.pop("lora", None) or {}
    if unknown := sorted(set(lora) - _LORA_KEYS):
        raise EngineUnavailable(
            f"The adapter's option {unknown[0]!r} is not supported.", "Merge the adapter."
        )
    config |= {
        "pretrained_llm": str(files.backbone),
        "tokenizer_path": str(files.tokenizer),
        "pretrained_weights": False,
        "trust_remote_code": False,
    }
    salm = _frame(config)
    pairs = _read_weights(salm, files, device, kind, lora)
    _place_buffers(salm, device, kind)
    salm.eval().requires_grad_(False)
    if salm.llm.config.tie_word_embeddings:
        salm.llm.lm_head.weight = salm.embed_tokens.weight
    if left := [n for n, p in salm.named_parameters() if p.is_meta]:
        raise EngineUnavailable(f"{files.weights} left {left[0]} without values.", "Fetch the model again.")
    return SalmModel(salm, _merge(salm, pairs, lora))


def _frame(config: dict[str, Any]) -> Any:
    """NeMo's SALM, its parameters without values."""
    with quiet():
        try:
            from accelerate import init_empty_weights
            from nemo.collections.speechlm2.models import SALM
        except ImportError as e:
            raise EngineUnavailable(f"NeMo cannot be imported: {e}.", INSTALL) from e
    with quiet():  # again: at import the libraries set their own levels
        try:
            with init_empty_weights(include_buffers=False):
                return SALM(config)
        except (KeyError, OSError, ValueError, TypeError, AttributeError) as e:
            raise EngineUnavailable(
                f"NeMo makes no SALM of this configuration: {type(e).__name__}: {e}.", "Is it a SALM?"
            ) from e


def _read_weights(
    salm: Any, files: SalmFiles, device: str, dtype: torch.dtype, lora: Mapping[str, Any]
) -> dict[str, dict[str, torch.Tensor]]:
    """Give every parameter its values; returns the adapter's pairs {module: {"A": ..., "B": ...}}."""
    from safetensors import SafetensorError, safe_open

    shapes = {name: tuple(tensor.shape) for name, tensor in salm.state_dict().items()}
    if salm.llm.config.tie_word_embeddings:
        shapes.pop(_HEAD, None)
    weights: dict[str, torch.Tensor] = {}
    pairs: dict[str, dict[str, torch.Tensor]] = {}
    try:
        with safe_open(str(files.weights), framework="pt", device=device) as file:
            for key in file.keys():  # noqa: SIM118 (no mapping)
                name = key.replace("llm.base_model.model.", "llm.").replace(".base_layer.", ".")
                tensor = file.get_tensor(key)
                if found := _ADAPTER.fullmatch(name):
                    pairs.setdefault(found[1], {})[found[2]] = tensor.float()
                elif name == _HEAD and name not in shapes:
                    continue
                elif tensor.is_floating_point() and not name.startswith(_FEATURES):
                    weights[name] = tensor.to(dtype)
                else:
                    weights[name] = tensor.float() if tensor.is_floating_point() else tensor
    except (SafetensorError, OSError) as e:
        raise EngineUnavailable(f"{files.weights} cannot be read: {e}.", "Fetch the model again.") from e
    targets = lora.get("target_modules", ())
    wanted = {
        f"{n}.{ab}" for n, _ in salm.llm.named_modules(prefix="llm") for ab in "AB" if _ends(n, targets)
    }
    pieces = {f"{name}.{ab}" for name, pair in pairs.items() for ab in pair}
    _complain(files, "lacks", sorted((set(shapes) - set(weights)) | (wanted - pieces)))
    _complain(files, "has unknown", sorted((set(weights) - set(shapes)) | (pieces - wanted)))
    _complain(files, "has another shape of", [n for n, s in shapes.items() if tuple(weights[n].shape) != s])
    salm.load_state_dict(weights, strict=False, assign=True)
    return pairs


def _ends(name: str, targets: Sequence[str]) -> bool:
    return any(name == t or name.endswith(f".{t}") for t in targets)


def _complain(files: SalmFiles, verb: str, names: Sequence[str]) -> None:
    if names:
        more = f" and {len(names) - 3} more" if len(names) > 3 else ""
        raise EngineUnavailable(
            f"{files.weights} {verb} {', '.join(names[:3])}{more}.",
            "It is not the model its config.json tells.",
        )


def _merge(
    salm: Any, pairs: Mapping[str, Mapping[str, torch.Tensor]], lora: Mapping[str, Any]
) -> list[tuple[Any, torch.Tensor, torch.Tensor]]:
    """(module, weight without, weight with the adapter), the sum made in float32; the adapter is on."""
    merged = []
    for name, pair in pairs.items():
        linear = salm.get_submodule(name)
        base = linear.weight.data
        change = pair["B"] @ pair["A"] * (float(lora["lora_alpha"]) / float(lora["r"]))
        full = (base.float() + change).to(base.dtype)
        linear.weight.data = full
        merged.append((linear, base, full))
    return merged


def _place_buffers(salm: Any, device: str, dtype: torch.dtype) -> None:
    """What is in no file. Rotary frequencies stay in float32: rounded to bfloat16 they are a radian off
    at 1,000 tokens."""
    positions = salm.perception.encoder.pos_enc
    if hasattr(positions, "pe"):
        del positions.pe
    salm.perception.encoder.set_max_audio_length(salm.perception.encoder.max_audio_length)
    for name, buffer in list(salm.named_buffers()):
        owner, _, leaf = name.rpartition(".")
        kind = dtype if leaf == "dtype_sentinel_tensor" else None
        setattr(salm.get_submodule(owner), leaf, buffer.to(device=device, dtype=kind))


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """NeMo and its libraries say much at import that nobody needs; errors stay."""
    names = ("nemo_logger", "nv_one_logger", "transformers", "lightning", "torch", "lhotse")
    before = {n: logging.getLogger(n).level for n in names}
    for name in names:
        logging.getLogger(name).setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for name, level in before.items():
            logging.getLogger(name).setLevel(level)
