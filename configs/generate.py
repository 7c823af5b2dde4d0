"""Writes `README.md` (every key) and `dawnchorus.schema.json` (for editors) from `dawnchorus.config`.

`make freeze` runs it; a test compares the files with what it would write.
"""

from __future__ import annotations

import ast
import json
import re
import typing
from itertools import groupby
from pathlib import Path

from dawnchorus import config, engines
from dawnchorus.engines import ENGINES, LANGUAGE_MODELS, NEEDS

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


PLACEHOLDERS = """
## Placeholders

Templates of `llm.prompts` hold places that are filled in. What is filled in is neutralised first.

| in | has to hold | may hold |
|---|---|---|
| `template` | `{transcript}`: all that was said | `{question}`: the prompt's `question` |
| `map_template`, a piece | `{transcript}`: it | `{task}`, `{part}`, `{parts}`, `{words}`, `{question}` |
| `combine_template`: several notes | `{notes}`: those, in order | `{task}`, `{words}`, `{question}` |

`{task}` is the template without its data, `{part}` of `{parts}` says which piece it is, `{words}` how long
the note may be.

```yaml
llm:
  engine: hf
  model: Qwen/Qwen3-1.7B
  prompts:
    summary:            # shipped; nothing is changed
    promises:
      template: |
        {transcript}

        Who promises what to whom? One line each.
      map_template: |
        Part {part} of {parts} of a call:
        {transcript}

        Note every promise in it, in at most {words} words. What the notes are for: {task}
```
"""

OPTIONS = """
## Options of engines

`engine.options` are those of `engine.name`; with `llm.engine`, `llm.options` are those of that engine.
"""


def readme() -> str:
    """The text of configs/README.md."""
    files = "".join(
        f"| [{path.name}]({path.name}) | {_use(path)} |\n" for path in sorted(HERE.glob("*.yaml"))
    )
    sections = groupby(config.config_keys(), key=lambda k: k.name.rpartition(".")[0])
    keys_ = "".join(_section(name, list(keys)) for name, keys in sections)
    return INTRO + files + KEYS + keys_ + PLACEHOLDERS + OPTIONS + "".join(_options(n) for n in NEEDS)


def _options(engine: str) -> str:
    """The options of an engine, from the page of its module, which is not imported."""
    module = ({**ENGINES, **LANGUAGE_MODELS})[engine].partition(":")[0].rpartition(".")[2]
    source = (Path(engines.__file__).parent / f"{module}.py").read_text(encoding="utf-8")
    page = (ast.get_docstring(ast.parse(source)) or "").partition("Options (`engine.options`):\n")[2]
    entries = re.findall(r"^    (\S[^:]*): (.*(?:\n {5,}.*)*)", page, re.MULTILINE)
    rows = "".join(
        f"| {', '.join(f'`{n}`' for n in names.split(', '))} | {_cell(text)} |\n" for names, text in entries
    )
    return f"\n### `{engine}`\n\n| option | meaning |\n|---|---|\n{rows}"


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
