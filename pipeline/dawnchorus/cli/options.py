"""The options that commands share, and the configuration they make."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from dawnchorus import config
from dawnchorus.config import RunConfig
from dawnchorus.errors import ConfigError

ConfigArguments = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="[CONFIG.yaml] [key=value ...]", help="A YAML file, and dotted overrides of its keys."
    ),
]
Input = Annotated[str | None, typer.Option("--input", "-i", help="Folder, glob, manifest or URL of audio.")]
Output = Annotated[str | None, typer.Option("--output", "-o", help="Folder or URL for tables and report.")]
EngineName = Annotated[str | None, typer.Option("--engine", help="whisper (default), salm or nemo_asr.")]
Model = Annotated[str | None, typer.Option("--model", help="Model name or path for the engine.")]
Limit = Annotated[int | None, typer.Option("--limit", min=1, help="Pilot: only the first N recordings.")]
Sample = Annotated[str | None, typer.Option("--sample", help="Pilot: a share of the recordings, such as 1%.")]
RetryFailed = Annotated[
    list[str] | None,
    typer.Option(
        "--retry-failed", metavar="KIND", help="Try final failures again: a kind, or `all`. Repeatable."
    ),
]
Redo = Annotated[bool, typer.Option("--redo", help="Transcribe again what other settings made.")]
KeepOld = Annotated[bool, typer.Option("--keep-old", help="Keep what other settings made.")]
OutputArgument = Annotated[str, typer.Argument(metavar="OUTPUT", help="Output folder or URL of a run.")]
TakeOver = Annotated[bool, typer.Option("--take-over", help="Stop another run that owns the output.")]


def read_config(arguments: list[str] | None, **options: Any) -> RunConfig:
    """The configuration from a YAML, dotted overrides and the shortcut options.

    Raises:
        ConfigError: see `config.build`; or the first argument is no YAML, or two options exclude each other.
    """
    words = list(arguments or [])
    path = words.pop(0) if words and "=" not in words[0] else None
    if path is not None and not path.lower().endswith((".yaml", ".yml")):
        raise ConfigError(f"{path!r} is no YAML file.", f"To transcribe it: --input {path} --output ...")
    if options.get("redo") and options.get("keep_old"):
        raise ConfigError("--redo and --keep-old exclude each other.", "Say one of them.")
    policy = "redo" if options.get("redo") else "keep-old" if options.get("keep_old") else None
    dotted = {
        "input": options.get("input"),
        "output": options.get("output"),
        "engine.name": options.get("engine"),
        "engine.model": options.get("model"),
        "limit": options.get("limit"),
        "sample": options.get("sample"),
        "resume.other_fingerprint": policy,
        "resume.retry_failed": retried(options.get("retry_failed")),
    }
    given = {k: v for k, v in dotted.items() if v is not None}
    return config.build({}, words, given) if path is None else config.load(path, words, given)


def retried(kinds: list[str] | None) -> list[str] | None:
    """`resume.retry_failed` of what was said after --retry-failed: [] is every kind, None nothing at all."""
    return [] if kinds and "all" in kinds else kinds
