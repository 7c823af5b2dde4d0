"""The frozen surfaces: what users and their files depend on, as text, one file each in `data/frozen/`.

`test_house.py` compares; `make freeze` (this file as a script) writes them anew. A change here is a
change for users: it belongs into a commit of its own that says so.
"""

from __future__ import annotations

import importlib.util
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa

from dawnchorus import config, schema

FROZEN = Path(__file__).parent / "data" / "frozen"


def schemas() -> str:
    """Every table's columns: name, type, whether they may be null."""
    tables = {name: value for name, value in vars(schema).items() if isinstance(value, pa.Schema)}
    return f"SCHEMA_VERSION {schema.SCHEMA_VERSION}\n" + "".join(
        f"\n{name}\n" + "".join(map(_column, tables[name])) for name in sorted(tables)
    )


def _column(field: pa.Field) -> str:
    return f"  {field.name}: {field.type}{'' if field.nullable else ' not null'}\n"


def config_keys() -> str:
    """Every key: default, unit, and `text` when it is in the fingerprint."""
    return "".join(map(_key, config.config_keys()))


def _key(key: config.ConfigKey) -> str:
    unit = f" {key.unit}" if key.unit else ""
    return f"{key.name} = {json.dumps(key.default)}{unit}{' (text)' if key.fingerprint else ''}\n"


def options() -> dict[str, set[str]]:
    """Every command and the long options it takes."""
    parts = re.split(r"^dawnchorus (\w+)$", cli_help(), flags=re.MULTILINE)[1:]
    return {
        name: set(re.findall(r"--[a-z-]+", said)) for name, said in zip(parts[::2], parts[1::2], strict=True)
    }


def cli_help() -> str:
    """Every command with its help and its parameters; not the layout, which is the library's."""
    import typer

    from dawnchorus import cli

    def walk(command: Any, path: str) -> Iterator[str]:
        yield f"{path}\n  {' '.join((command.help or '').split())}\n"
        for parameter in command.params:
            names = ", ".join((*parameter.opts, *parameter.secondary_opts))
            needed = " (needed)" if parameter.required else ""
            text = " ".join((getattr(parameter, "help", None) or "").split())
            yield f"  {parameter.param_type_name} {names}{needed}: {text}\n"
        for name, child in sorted(getattr(command, "commands", {}).items()):
            yield "\n"
            yield from walk(child, f"{path} {name}")

    return "".join(walk(typer.main.get_command(cli.app), "dawnchorus"))


def surfaces() -> dict[Path, str]:
    """Every frozen file and what it has to hold."""
    found = {FROZEN / "schemas.txt": schemas(), FROZEN / "config_keys.txt": config_keys()}
    if importlib.util.find_spec("dawnchorus.cli"):
        found[FROZEN / "cli_help.txt"] = cli_help()
    return found


if __name__ == "__main__":
    for target, content in surfaces().items():
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(content, encoding="utf-8")
