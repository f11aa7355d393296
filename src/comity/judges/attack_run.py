"""Run the attack suite against several judges: what each lets through, and whether prompts and parsers hold."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from comity.judges.attack_pairs import attack_comparisons, describe_comparisons, summarize_comparisons
from comity.judges.attack_prompts import check_prompts
from comity.judges.attacks import Attack, describe_outcomes, run_attacks, summarize_attacks
from comity.judges.labels import Kind
from comity.types import AgencyJudge, AgreementJudge, PreferenceJudge


@dataclass(frozen=True)
class AttackedJudge:
    """A judge under its name: of single texts by kind and, where it answers that prompt, of pairs."""

    name: str
    single: Mapping[Kind, AgreementJudge | AgencyJudge]
    pairs: PreferenceJudge | None = None


def attack_judges(attacks: Sequence[Attack], judges: Sequence[AttackedJudge], date: str) -> dict[str, Any]:
    """Return the date, the check of prompts and parsers, one row a judge, kind and family, and every outcome."""
    rows: list[dict[str, Any]] = []
    told: list[dict[str, Any]] = []
    for judge in judges:
        outcomes = run_attacks(attacks, judge.single)
        rows += summarize_attacks(judge.name, outcomes)
        told += describe_outcomes(judge.name, outcomes)
        if judge.pairs is not None:
            compared = attack_comparisons(attacks, judge.pairs)
            rows += summarize_comparisons(judge.name, compared)
            told += describe_comparisons(judge.name, compared)
    return {"date": date, "prompts": check_prompts(attacks), "rows": rows, "outcomes": told}
