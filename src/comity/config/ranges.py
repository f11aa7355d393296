"""Ranges of numbers in settings."""

from typing import Any

from comity.errors import ConfigError


def at_least(settings: Any, prefix: str, **minima: float) -> None:
    """Raise ConfigError for the first setting below its minimum; `prefix` stands before its name."""
    for name, minimum in minima.items():
        value = getattr(settings, name)
        if not value >= minimum:
            raise ConfigError(f"{prefix}{name} is {value}: choose {minimum} or more")
