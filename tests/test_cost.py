"""Prices: dated and sourced, a user's own, and what follows from them."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from dawnchorus.config import CostConfig
from dawnchorus.cost import bill, price, prices, sentences
from dawnchorus.errors import ConfigError


def test_every_shipped_price_says_when_and_where() -> None:
    table = prices(CostConfig())
    for one in (*table.gpu_hour.values(), *table.audio_hour.values()):
        assert re.fullmatch(r"20\d\d-(0[1-9]|1[0-2])", one.seen), one
        assert len(one.source) > 10, one


def test_what_the_user_pays_comes_first_then_the_table() -> None:
    assert price(CostConfig(gpu_hour=1.25), "H100").dollars == 1.25  # type: ignore[union-attr]
    assert price(CostConfig(gpu="A100"), "H100").name == "A100"  # type: ignore[union-attr]
    assert price(CostConfig(), "H100").name == "H100"  # type: ignore[union-attr]
    assert price(CostConfig(), "GTX-1080") is None, "nobody knows"
    assert price(CostConfig(), None) is None
    with pytest.raises(ConfigError, match=r"no price of 'B300'.*Known: H100"):
        price(CostConfig(gpu="B300"), None)


def test_a_bill_adds_up(tmp_path: Path) -> None:
    mine = tmp_path / "prices.yaml"
    mine.write_text(
        "gpu_hour:\n  X: {price: 2.0, seen: 2026-11, source: my invoice}\n"
        "audio_hour:\n  them: {price: 0.1, seen: 2026-11, source: their page}\n"
    )
    config = CostConfig(prices=str(mine))
    of = price(config, "X")
    assert of is not None
    made = bill(config, of, gpu_hours=3.0, audio=300 * 3600.0)
    assert made.dollars == 6.0
    assert made.per_1000_hours == pytest.approx(20.0)
    assert made.break_even == {"them": pytest.approx(20.0)}
    said = " ".join(sentences(made, 300 * 3600.0, 3.0))
    assert "$6.00 at $2.00 per X hour (my invoice, seen 2026-11)" in said
    assert "$20.00 per 1,000 hours" in said
    assert "made 100.0 hours of audio; above 20.0" in said
    assert said.endswith("cheaper.")
    assert sentences(bill(config, of, 3.0, 3600.0), 3600.0, 3.0)[-1].endswith("dearer.")
    assert bill(config, of, 0.0, 0.0).per_1000_hours is None


@pytest.mark.parametrize(
    "text", ["", "gpu_hour: {X: {price: -1, seen: a, source: b}}\naudio_hour: {}", "gpu_hour: 3", "{"]
)
def test_a_bad_table_is_named(tmp_path: Path, text: str) -> None:
    (tmp_path / "p.yaml").write_text(text)
    with pytest.raises(ConfigError, match=r"p\.yaml is no table of prices"):
        prices(CostConfig(prices=str(tmp_path / "p.yaml")))
