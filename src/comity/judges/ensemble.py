"""Several judges as one: mean, median or the strictest of their verdicts, and how far they lie apart.

With verdicts missing, the others decide as long as they are more than half; otherwise the row is unscored. The text of
a combined verdict lists what each judge said; its uncertainty is the standard deviation over the judges.
"""

import statistics
from collections.abc import Callable, Sequence
from functools import partial
from typing import Literal

from comity.types import AgencyJudge, AgreementJudge, Answer, RoundEnding, Verdict

Rule = Literal["mean", "median", "min"]
REDUCTIONS: dict[Rule, Callable[[Sequence[float]], float]] = {
    "mean": statistics.fmean,
    "median": statistics.median,
    "min": min,
}


def combine_agency_judges(judges: Sequence[AgencyJudge], rule: Rule) -> AgencyJudge:
    """Return a judge whose score is the mean, median or lowest of several."""

    def judge(answers: Sequence[Answer]) -> list[Verdict]:
        columns = [judge(answers) for judge in judges]
        return [_combine(row, rule, votes=False) for row in zip(*columns, strict=True)]

    return judge


def combine_agreement_judges(judges: Sequence[AgreementJudge], rule: Rule) -> AgreementJudge:
    """Return a judge by vote: more than half must say YES, with `min` all of them; `score` is their mean and so on."""

    def judge(endings: Sequence[RoundEnding]) -> list[Verdict]:
        columns = [judge(endings) for judge in judges]
        return [_combine(row, rule, votes=True) for row in zip(*columns, strict=True)]

    return judge


def _combine(verdicts: Sequence[Verdict], rule: Rule, votes: bool) -> Verdict:
    values = [_value(verdict, votes) for verdict in verdicts]
    known = [value for value in values if value is not None]
    build = partial(
        Verdict,
        judge=f"{rule}({', '.join(verdict.judge for verdict in verdicts)})",
        template_hash="+".join(sorted({verdict.template_hash for verdict in verdicts})),
        text="; ".join(_describe(verdict, value) for verdict, value in zip(verdicts, values, strict=True)),
    )
    if 2 * len(known) <= len(values):
        return build(score=None)
    score = float(REDUCTIONS[rule](known))
    return build(score=score, agreed=score > 0.5 if votes else None, uncertainty=statistics.pstdev(known))


def _value(verdict: Verdict, votes: bool) -> float | None:
    # A vote, not a probability: each judge knows its own threshold.
    if votes:
        return None if verdict.agreed is None else float(verdict.agreed)
    return verdict.score


def _describe(verdict: Verdict, value: float | None) -> str:
    word = "unscored" if value is None else f"{value:.3g}"
    return f"{verdict.judge} {word}" + (f" ({verdict.text})" if verdict.text else "")
