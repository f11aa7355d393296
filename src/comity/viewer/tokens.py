"""Stored tokens for a page: their log-probability before and after the step, as classes and as words."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeGuard

SHADES = (-0.105, -0.51, -1.2, -2.3, -3.5, -5.0)
"""Log-probabilities between the shades: probabilities of 90, 60, 30, 10, 3 and 0.7 per cent."""
CHANGES = (0.05, 0.2, 0.7)
"""Changes of a log-probability between the shades: a factor of 1.05, 1.2 and 2."""
ADVANTAGES = (0.1, 0.7, 1.4)
"""Advantages between the shades, in standard deviations of the group."""


@dataclass(frozen=True, slots=True)
class Token:
    """One sampled token; `classes` are its shades in the style sheet, `hint` its figures in words."""

    text: str
    classes: str
    hint: str


def list_tokens(sampled: object, trained: bool | None, advantage: object) -> tuple[Token, ...]:
    """Return the stored tokens of a message, () without any or where texts and figures do not fit together.

    Classes: `lp0` (expected) to `lp6` (a surprise); `up0` to `up3` or `down1` to `down3` by what the step changed;
    `win0` to `win3` or `lose1` to `lose3` by the advantage of what carries loss.
    """
    if not isinstance(sampled, dict):
        return ()
    texts, logprobs = sampled.get("texts"), sampled.get("logprobs")
    if not isinstance(texts, list) or not isinstance(logprobs, list) or len(texts) != len(logprobs):
        return ()
    after = sampled.get("new_logprobs")
    if not isinstance(after, list) or len(after) != len(texts):
        after = [None] * len(texts)
    loss = {True: "in the loss", False: "not in the loss", None: "loss unknown"}[trained]
    shade = ""
    if trained and isinstance(advantage, int | float):
        loss += f", advantage {_sign(advantage)}"
        shade = f" {name_shade(advantage, ADVANTAGES, 'win', 'lose')}"
    return tuple(
        Token(str(text), _classes(old, new) + shade, f"{_describe(old, new)} · {loss}")
        for text, old, new in zip(texts, logprobs, after, strict=True)
    )


def has_change(sampled: object) -> bool:
    """Tell whether log-probabilities after the step are stored."""
    return isinstance(sampled, dict) and bool(sampled.get("new_logprobs"))


def name_shade(value: float, limits: Sequence[float], up: str, down: str) -> str:
    """Return a class by the size and the sign of a figure; what is below all limits is `up` with a 0."""
    size = sum(abs(value) >= limit for limit in limits)
    return f"{up if value >= 0 or not size else down}{size}"


def _classes(old: object, new: object) -> str:
    if not _is_figure(old):
        return "lp0"
    shade = f"lp{sum(old < limit for limit in SHADES)}"
    return f"{shade} {name_shade(new - old, CHANGES, 'up', 'down')}" if _is_figure(new) else shade


def _describe(old: object, new: object) -> str:
    if not _is_figure(old):
        return "no log-probability"
    words = f"log-probability {_plain(old)} ({_percent(old)}) when it was sampled"
    return f"{words}, {_plain(new)} ({_percent(new)}) after the step, {_sign(new - old)}" if _is_figure(new) else words


def _is_figure(value: object) -> TypeGuard[float]:
    return isinstance(value, int | float) and math.isfinite(value)


def _percent(logprob: float) -> str:
    return f"{100 * math.exp(min(logprob, 0.0)):.1f} %"


def _plain(value: float) -> str:
    return f"{value:.2f}".replace("-", "−")


def _sign(value: float) -> str:
    return f"{value:+.2f}".replace("-", "−")
