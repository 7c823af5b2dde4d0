"""Writes `README.md` (every key) and `dawnchorus.schema.json` (for editors) from `dawnchorus.config`.

`make freeze` runs it; a test compares the files with what it would write.
"""

from __future__ import annotations

import json
import typing
from itertools import groupby
from pathlib import Path

from dawnchorus import config

HERE = Path(__file__).parent

INTRO = """\
# Configuration

<!-- Made by generate.py from dawnchorus/config: change it there, then `make freeze`. -->

One YAML per run, and `key=value` overrides after it on the command line, dotted, the value in YAML:

```
dawnchorus run configs/whisper_laptop.yaml input=./talks engine.model=small.en audio.channels=separate
```

Unknown keys are errors. Editors that know `yaml-language-server` complete and check the keys by
`dawnchorus.schema.json`. Credentials never stand in a YAML: storage reads the usual AWS variables
and profile.

| file | use |
|---|---|
"""

KEYS = """
## Every key

A key with a dot in the column *text* can change what is transcribed. Together they are the run's
**fingerprint**: an output made with another fingerprint is refused until
`resume.other_fingerprint` says `redo` or `keep-old`. All other keys may differ from resume to resume.
"""


def readme() -> str:
    """The text of configs/README.md."""
    files = "".join(
        f"| [{path.name}]({path.name}) | {_use(path)} |\n" for path in sorted(HERE.glob("*.yaml"))
    )
    sections = groupby(config.config_keys(), key=lambda k: k.name.rpartition(".")[0])
    return INTRO + files + KEYS + "".join(_section(name, list(keys)) for name, keys in sections)


def _use(path: Path) -> str:
    """The first sentence of a configuration's opening comment."""
    lines = [line[1:].strip() for line in path.read_text(encoding="utf-8").splitlines()[1:]]
    start = next(i for i, line in enumerate(lines) if line)
    return " ".join(lines[start:]).split(". ")[0].split(": ")[0].rstrip(".")


def _section(name: str, keys: list[config.ConfigKey]) -> str:
    title = f"### `{name}`" if name else "### The run"
    rows = "".join(
        f"| `{k.name}` | {_default(k)} | {_values(k.annotation)} | {k.unit} |"
        f" {'•' if k.fingerprint else ''} | {_cell(k.doc)} |\n"
        for k in keys
    )
    return (
        f"\n{title}\n\n| key | default | values | unit | text | meaning |\n|---|---|---|---|---|---|\n{rows}"
    )


def _default(key: config.ConfigKey) -> str:
    if key.name in ("input", "output"):
        return "**needed**"
    if isinstance(key.default, float) and key.default.is_integer():
        return f"`{int(key.default)}`"
    return "none" if key.default is None else f"`{json.dumps(key.default)}`"


def _values(annotation: object) -> str:
    """A key's type in words a YAML author uses."""
    if typing.get_origin(annotation) is typing.Literal:
        return ", ".join(f"`{value}`" for value in typing.get_args(annotation))
    if parts := [a for a in typing.get_args(annotation) if a is not type(None)]:
        origin = typing.get_origin(annotation)
        if origin is list:
            return f"list of {_values(parts[0])}"
        return "mapping" if origin is dict else " or ".join(_values(part) for part in parts)
    words = {str: "text", int: "whole number", float: "number", bool: "`true`, `false`"}
    return words[annotation] if isinstance(annotation, type) and annotation in words else "any"


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def outputs() -> dict[Path, str]:
    """Every generated file and what it has to hold."""
    schema = json.dumps(config.json_schema(), indent=2, ensure_ascii=False, sort_keys=True) + "\n"
    return {HERE / "README.md": readme(), HERE / "dawnchorus.schema.json": schema}


if __name__ == "__main__":
    for target, text in outputs().items():
        target.write_text(text, encoding="utf-8")
