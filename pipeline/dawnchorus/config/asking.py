"""The section `llm` of the configuration: what is asked about the transcripts, and which model answers."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from dawnchorus.config.sections import Section, key


class PromptConfig(Section):
    """One prompt of LLM mode; what is not set is the shipped prompt's of that name."""

    template: str | None = Field(
        None, description="The whole prompt; `{transcript}` and `{question}` are filled in."
    )
    question: str | None = Field(None, description="The question, for `qa` or a template with `{question}`.")
    max_tokens: int | None = Field(None, description="Most tokens of the answer.", ge=1)
    json_schema: dict[str, Any] | None = Field(None, description="JSON Schema that the answer has to fit.")
    times: bool | None = Field(None, description="Mark each line of the transcript with its time.")
    map_template: str | None = Field(None, description="Asks for notes on one piece, `{transcript}`.")
    combine_template: str | None = Field(None, description="Asks for one note of several, `{notes}`.")
    notes_tokens: int | None = Field(None, description="Most tokens of one note.", ge=1)


class LlmConfig(Section):
    """What is asked about the transcripts, and which model answers."""

    prompts: list[str] | dict[str, PromptConfig | None] = key(
        [],
        "What to ask: names of shipped prompts (summary, action_items, topics, qa), or a mapping of names "
        "to what differs from the shipped one: template, question, max_tokens, json_schema, times, "
        "map_template, combine_template, notes_tokens. A new name needs a template, or a question for `qa`.",
        text=False,
    )
    engine: str | None = key(
        None, "Engine that answers; None: the one that transcribes, where it has an LLM mode.", text=False
    )
    model: str | None = key(
        None, "Its model, by name on the hub or path; only with `llm.engine`.", text=False
    )
    revision: str | None = key(None, "Pinned revision of a hub model; only with `llm.engine`.", text=False)
    device: Literal["auto", "cpu", "cuda"] = key("auto", "Where it runs; only with `llm.engine`.", text=False)
    dtype: str = key("auto", "Its weights' type; only with `llm.engine`.", text=False)
    options: dict[str, Any] = key({}, "Options of that engine alone; only with `llm.engine`.", text=False)
    piece_tokens: int = key(
        3_500, "Most tokens of a transcript in one prompt; longer ones go in pieces.", text=False, ge=32
    )
    window_rows: int | None = key(
        None,
        "Requests of one engine call and one committed part. None: 4 on CPU, 64 on a GPU.",
        text=False,
        ge=1,
    )

    @field_validator("prompts", mode="before")
    @classmethod
    def _one_name(cls, value: Any) -> Any:
        return [value] if isinstance(value, str) else value

    @model_validator(mode="after")
    def _of_its_engine(self) -> LlmConfig:
        named = ("model", "revision", "device", "dtype", "options")
        given = [n for n in named if getattr(self, n) != type(self).model_fields[n].default]
        if self.engine is None and given:
            raise ValueError(f"llm.{given[0]} needs an llm.engine, such as hf (ask: --engine hf)")
        return self
