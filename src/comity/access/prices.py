"""Dollars per million tokens: the shipped table, and the user's own before it."""

import math
import re
import tomllib
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from comity.errors import DataError

TABLE = "dollars_per_million_tokens"
_SNAPSHOT = re.compile(r"-(latest|\d{4}-?\d{2}-?\d{2})$")


@dataclass(frozen=True, slots=True)
class Price:
    """Dollars per million tokens that go in and come out."""

    input: float
    output: float

    def cost(self, input_tokens: int, output_tokens: int) -> float:
        """Return dollars."""
        return (input_tokens * self.input + output_tokens * self.output) / 1e6


def load_prices(source: str) -> dict[str, Price]:
    """Return prices by model name, the user's file before the shipped table; raise DataError for a bad file."""
    shipped = resources.files(__package__).joinpath("prices.toml").read_text(encoding="utf-8")
    prices = _read_table(tomllib.loads(shipped), "prices.toml")
    if source == "shipped":
        return prices
    try:
        own = tomllib.loads(Path(source).read_text(encoding="utf-8"))
    except OSError as error:
        raise DataError(f"access.prices is {source!r}: {error.strerror}; give a TOML file or shipped") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise DataError(f"access.prices: {source} is not valid TOML ({error}): mend that place") from error
    return prices | _read_table(own, source)


def find_price(prices: dict[str, Price], model: str) -> Price | None:
    """Return the price of a model by its name, its name without a date, or its provider; None when unknown."""
    for name in (model, _SNAPSHOT.sub("", model), model.split("/")[0] + "/*"):
        if name in prices:
            return prices[name]
    return None


def _read_table(document: dict[str, Any], source: str) -> dict[str, Price]:
    table = document.get(TABLE)
    if not isinstance(table, dict):
        raise DataError(f"{source}: has no table [{TABLE}]; write [{TABLE}] above the prices")
    return {name: _read_price(entry, name, source) for name, entry in table.items()}


def _read_price(entry: Any, name: str, source: str) -> Price:
    mend = 'write "MODEL" = { input = 1.0, output = 2.0 } in dollars per million tokens'
    if not isinstance(entry, dict) or set(entry) != {"input", "output"}:
        raise DataError(f"{source}: the price of {name!r} is {entry!r}; {mend}")
    for value in entry.values():
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < math.inf:
            raise DataError(f"{source}: the price of {name!r} has {value!r}; {mend}")
    return Price(float(entry["input"]), float(entry["output"]))
