"""The command that handles models: bundle."""

from __future__ import annotations

from typing import Annotated

import typer

from dawnchorus.cli.console import out, plainly


def bundle(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="Hub name, folder or URL of a NeMo SALM.")],
    destination: Annotated[str, typer.Argument(metavar="DESTINATION", help="Folder or URL for the bundle.")],
    revision: Annotated[
        str | None, typer.Option("--revision", help="Commit of a hub model; the known one if not given.")
    ] = None,
) -> None:
    """Copy a model to where machines without the hub find it. With its tokenizer, attribution and hashes."""
    from dawnchorus.engines import salm_bundle

    with plainly():
        out.print(salm_bundle.bundle(model, destination, revision).sentence(), soft_wrap=True)
