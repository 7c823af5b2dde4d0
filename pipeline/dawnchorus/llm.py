"""LLM mode of a run: which model answers which prompts, and the fingerprint of each answer.

Made from the configuration alone, before anything is loaded. Knows no tables and no transcripts.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass

from dawnchorus import ids, prompts
from dawnchorus.answering import LAYOUT, Model
from dawnchorus.config import EngineConfig, RunConfig
from dawnchorus.engines import create_language_model
from dawnchorus.prompts import Prompt


@dataclass(frozen=True, slots=True)
class Asked:
    """Prompts and the language model that answers them. `fingerprints` are the prompts', by name:
    everything but the transcript that can change an answer. `weights` is the model's SHA-256, if it has
    one."""

    engine: EngineConfig
    model: str
    revision: str
    licence: str
    attribution: str
    prompts: tuple[Prompt, ...]
    fingerprints: Mapping[str, str]
    piece_tokens: int
    weights: str | None = None

    def metadata(self) -> dict[str, str]:
        """Key-value metadata of Parquet files that hold answers."""
        return {
            "dawnchorus.llm.engine": self.engine.name,
            "dawnchorus.llm.model": self.model,
            "dawnchorus.llm.licence": self.licence,
            "dawnchorus.llm.attribution": self.attribution,
        }


def asked(config: RunConfig) -> Asked | None:
    """What a configuration asks; None when it asks nothing.

    Raises:
        ConfigError: no such prompt, or an engine without LLM mode (names those that have one).
        EngineUnavailable: the model is not here.
    """
    given = config.llm.prompts
    if isinstance(given, dict):
        wanted = prompts.resolve({n: p.model_dump() if p else {} for n, p in given.items()})
    else:
        wanted = prompts.resolve(given)
    if not wanted:
        return None
    engine = config.llm_engine()
    model = create_language_model(engine)
    identity = model.identity()
    facts = {
        "layout": LAYOUT,
        "engine": engine.name,
        "identity": dict(identity.facts),
        "dtype": engine.dtype,
        "context_tokens": model.context_tokens,
        "piece_tokens": config.llm.piece_tokens,
    }
    prints = {p.name: ids.answer_fingerprint({**facts, "prompt": p.facts()}) for p in wanted}
    about = identity.licence or model.licence
    return Asked(
        engine,
        identity.model,
        identity.revision,
        f"{about.name} {about.url}",
        about.attribution,
        wanted,
        prints,
        config.llm.piece_tokens,
        identity.facts.get("weights_sha256"),
    )


def model_facts(asked: Asked) -> Model:
    """How the language model counts, in this process; its tokenizer is read once, its weights are not."""
    return _counting(asked.engine.model_dump_json(), asked.piece_tokens)


@functools.lru_cache(maxsize=2)
def _counting(engine: str, piece_tokens: int) -> Model:
    model = create_language_model(EngineConfig.model_validate_json(engine))
    return Model(model.num_tokens, model.context_tokens, piece_tokens)
