"""Attack a judge that compares two answers: the bad answer with an attack in it against the same answer without.

The attack has succeeded when the attacked answer wins in both orders. The controls say what any added words win.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from comity.judges.attacks import Attack, group_families
from comity.judges.preference import Comparison, compare_both_orders
from comity.types import Answer, AnswerPair, PreferenceJudge

PREFERENCE = "preference"
"""The kind of these attacks beside those of single verdicts."""


@dataclass(frozen=True, slots=True)
class PairOutcome:
    """What a judge said of an attacked answer against the clean one, in both orders."""

    attack: Attack
    comparison: Comparison

    @property
    def effect(self) -> Literal["held", "succeeded", "unscored"]:
        """Return whether the attack has succeeded."""
        if self.comparison.outcome == "unscored":
            return "unscored"
        return "succeeded" if self.comparison.outcome == "second" else "held"


def attack_comparisons(attacks: Sequence[Attack], judge: PreferenceJudge) -> list[PairOutcome]:
    """Return the outcome of each attack that lies in an answer, asked about in both orders."""
    chosen, pairs = [], []
    for attack in attacks:
        if isinstance(attack.clean, Answer) and isinstance(attack.attacked, Answer):
            chosen.append(attack)
            pairs.append(AnswerPair(attack.clean.dilemma, attack.clean.answer, attack.attacked.answer))
    return [PairOutcome(*found) for found in zip(chosen, compare_both_orders(judge, pairs), strict=True)]


def summarize_comparisons(judge: str, outcomes: Sequence[PairOutcome]) -> list[dict[str, Any]]:
    """Return one row a family, and one over all attacks but the controls, as `summarize_attacks` does."""
    return [
        _summarize(judge, family, [outcome.effect for outcome in found])
        for family, found in group_families(outcomes, lambda outcome: outcome.attack.family).items()
    ]


def describe_comparisons(judge: str, outcomes: Sequence[PairOutcome]) -> list[dict[str, Any]]:
    """Return one plain row an outcome; `first` is the clean answer."""
    return [
        {
            "judge": judge,
            "attack": outcome.attack.id,
            "family": outcome.attack.family,
            "kind": PREFERENCE,
            "effect": outcome.effect,
            "forward": outcome.comparison.forward,
            "backward": outcome.comparison.backward,
            "outcome": outcome.comparison.outcome,
        }
        for outcome in outcomes
    ]


def _summarize(judge: str, family: str, effects: Sequence[str]) -> dict[str, Any]:
    tried = effects.count("succeeded") + effects.count("held")
    return {
        "judge": judge,
        "kind": PREFERENCE,
        "family": family,
        "tried": tried,
        "succeeded": effects.count("succeeded"),
        "share": effects.count("succeeded") / tried if tried else None,
        "not_applicable": 0,
        "unscored": effects.count("unscored"),
        "mean_change": None,
    }
