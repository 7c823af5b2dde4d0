"""What a run costs in money: GPU-hours times a dated price, beside what managed services ask. Pure but for
reading the table; knows no run.

Prices are US dollars. Nothing is priced that nobody has a price for.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib import resources
from typing import Any

import yaml

from dawnchorus.config import CostConfig
from dawnchorus.errors import ConfigError
from dawnchorus.records import Seconds


@dataclass(frozen=True, slots=True)
class Price:
    """Dollars for one hour of something, with when (`2026-05`) and where that was seen."""

    name: str
    dollars: float
    seen: str
    source: str


@dataclass(frozen=True, slots=True)
class Prices:
    """Of a GPU-hour by accelerator, and of an audio-hour by managed service."""

    gpu_hour: dict[str, Price]
    audio_hour: dict[str, Price]


@dataclass(frozen=True, slots=True)
class Bill:
    """What some audio cost, or would: `dollars` for all of it, `per_1000_hours` of audio, and how many hours
    of audio a GPU-hour has to make before a run is cheaper than each managed service (`break_even`)."""

    price: Price
    dollars: float
    per_1000_hours: float | None
    break_even: dict[str, float]


def prices(config: CostConfig) -> Prices:
    """The table of `cost.prices`, or the one that is shipped.

    Raises:
        ConfigError: it cannot be read, or is not of that shape.
    """
    name = config.prices or "the shipped table"
    try:
        if config.prices is None:
            text = resources.files("dawnchorus").joinpath("prices.yaml").read_text(encoding="utf-8")
        else:
            with open(config.prices, encoding="utf-8") as f:
                text = f.read()
        tree = yaml.safe_load(text)
        return Prices(*({n: _price(n, p) for n, p in tree[k].items()} for k in ("gpu_hour", "audio_hour")))
    except (
        OSError,
        UnicodeDecodeError,
        yaml.YAMLError,
        KeyError,
        TypeError,
        AttributeError,
        ValueError,
    ) as e:
        raise ConfigError(
            f"{name} is no table of prices: {type(e).__name__}: {e}.",
            "It has gpu_hour and audio_hour, each name with price, seen and source.",
        ) from e


def _price(name: str, row: dict[str, Any]) -> Price:
    dollars = float(row["price"])
    if not dollars > 0:
        raise ValueError(f"the price of {name} is {dollars:g}")
    return Price(str(name), dollars, str(row["seen"]), str(row["source"]))


def price(config: CostConfig, accelerator: str | None) -> Price | None:
    """What a GPU-hour costs: `cost.gpu_hour`, else the table's for `cost.gpu`, else for the accelerator that
    the cluster reports (`H100`); None where nobody knows.

    Raises:
        ConfigError: `cost.gpu` is not in the table.
    """
    if config.gpu_hour is not None:
        return Price(config.gpu or accelerator or "GPU", config.gpu_hour, "", "cost.gpu_hour")
    known = prices(config).gpu_hour
    if config.gpu is not None and config.gpu not in known:
        raise ConfigError(f"There is no price of {config.gpu!r}.", f"Known: {', '.join(known)}.")
    return known.get(config.gpu or accelerator or "")


def bill(config: CostConfig, of: Price, gpu_hours: float, audio: Seconds) -> Bill:
    """The bill for `audio` seconds of audio that took, or would take, `gpu_hours`."""
    dollars = gpu_hours * of.dollars
    each = dollars / (audio / 3600) * 1000 if audio > 0 else None
    services = prices(config).audio_hour
    return Bill(of, dollars, each, {name: of.dollars / p.dollars for name, p in services.items()})


def sentences(of: Bill, audio: Seconds, gpu_hours: float) -> list[str]:
    """The bill as people read it."""
    seen = f", seen {of.price.seen}" if of.price.seen else ""
    said = [
        f"${of.dollars:,.2f} at ${of.price.dollars:,.2f} per {of.price.name} hour ({of.price.source}{seen}), "
        "for transcribing."
    ]
    if of.per_1000_hours is not None:
        said.append(f"That is ${of.per_1000_hours:,.2f} per 1,000 hours of audio.")
    if gpu_hours > 0 and of.break_even:
        made = audio / 3600 / gpu_hours
        name, need = max(of.break_even.items(), key=lambda b: b[1])
        verdict = "cheaper" if made > need else "dearer"
        said.append(
            f"A GPU-hour made {made:,.1f} hours of audio; above {need:,.1f} it beats the cheapest "
            f"managed service listed ({name}): this run was {verdict}."
        )
    return said
