"""The judges of one run side by side: those that train, and those that only watch."""

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from comity.access import Spend
from comity.config import AccessConfig, JudgeConfig, ModelConfig
from comity.engines.local import LocalEngine
from comity.engines.models import EMBEDDED
from comity.judges.human import build_human_judge, mix_human_ratings
from comity.judges.named import JudgeSources, list_judges, open_sources
from comity.negotiation.protocol import is_solo, latest_round
from comity.types import (
    AgencyJudge,
    AgreementJudge,
    Answer,
    Judged,
    Negotiation,
    RoundEnding,
    SatisfactionJudge,
    Verdict,
)

SHIPPED_ACCESS = AccessConfig()
SELF_JUDGE = "self"


class Judges(Protocol):
    """What a training run asks of its judges, wherever they are."""

    def agreement(self, endings: Sequence[RoundEnding], /) -> Sequence[Verdict]:
        """Return for each round whether both sides agreed."""

    def judge(self, negotiations: Sequence[Negotiation], gated: bool = True) -> list[Judged]:
        """Score ended negotiations, see `Panel.judge`."""

    @property
    def watches_answers(self) -> bool:
        """Return whether a held-out judge scores the joint answers too."""

    @property
    def costs_money(self) -> bool:
        """Return whether a judge is behind an address."""

    def read_spend(self) -> list[Spend]:
        """Return what this run spent on its judges so far, in every process."""

    def count_passed_on(self) -> dict[str, tuple[int, int]]:
        """Return how many rows each cascade has read and passed on so far for this process, by what it judges."""

    def close(self) -> None:
        """Close what the judges hold open."""


@dataclass(frozen=True)
class Panel:
    """The training judges and, beside them, the held-out judges that never train anything."""

    agreement: AgreementJudge
    agency: AgencyJudge
    heldout_agreement: AgreementJudge | None = None
    heldout_agency: AgencyJudge | None = None
    satisfaction: SatisfactionJudge | None = None
    sources: JudgeSources | None = None
    """What the judges are made of; closed with the panel."""

    def read_spend(self) -> list[Spend]:
        """Return what this run spent on its judges so far, in every process; [] when none is behind an address."""
        return self.sources.read_spend() if self.sources is not None else []

    @property
    def watches_answers(self) -> bool:
        """Return whether a held-out judge scores the joint answers too."""
        return self.heldout_agency is not None

    @property
    def costs_money(self) -> bool:
        """Return whether a judge is behind an address."""
        return self.sources is not None and bool(self.sources.external)

    def count_passed_on(self) -> dict[str, tuple[int, int]]:
        """Return how many rows each cascade has read and passed on so far in this process, by what it judges."""
        counts = self.sources.passed_on if self.sources is not None else {}
        return {name: (count.rows, count.passed) for name, count in counts.items()}

    def close(self) -> None:
        """Close the connections of judges behind addresses."""
        if self.sources is not None:
            self.sources.close()

    def judge(self, negotiations: Sequence[Negotiation], gated: bool = True) -> list[Judged]:
        """Score ended negotiations: the joint answer where there is one, 0 where they did not agree.

        Without the gate, an answer that was written without agreement earns its score too.
        A dialogue is unscored when a reply failed, when its answer is unscored, or when it ended without agreement
        and a check on the way is unscored.
        """
        written = [i for i, n in enumerate(negotiations) if n.completion is not None and n.ending != "failed"]
        answers = [_answer(negotiations[i]) for i in written]
        scores = dict(zip(written, self.agency(answers), strict=True)) if written else {}
        watched = (
            dict(zip(written, self.heldout_agency(answers), strict=True)) if written and self.heldout_agency else {}
        )
        agreed = self._heldout_agreements(negotiations)
        return [
            Judged(
                negotiation=negotiation,
                verdicts=(scores[i],) if i in scores else (),
                reward=_reward(negotiation, scores.get(i), gated),
                heldout_agreed=agreed.get(i),
                heldout_score=watched[i].score if i in watched else None,
            )
            for i, negotiation in enumerate(negotiations)
        ]

    def _heldout_agreements(self, negotiations: Sequence[Negotiation]) -> dict[int, bool | None]:
        if self.heldout_agreement is None:
            return {}
        played = [i for i, n in enumerate(negotiations) if not is_solo(n.scenario) and n.ending != "failed"]
        verdicts = self.heldout_agreement([latest_round(negotiations[i]) for i in played])
        return {i: verdict.agreed for i, verdict in zip(played, verdicts, strict=True)}


def build_panel(
    judges: JudgeConfig,
    engine: LocalEngine | None,
    model: ModelConfig,
    access: AccessConfig = SHIPPED_ACCESS,
    run: str = "",
) -> Panel:
    """Build the judges that the settings name (see `named`); heads read the frozen base of `engine` where it is theirs.
    Without an engine they load their base themselves, and no judge can be the policy.

    What judges behind an address cost is booked under `run`. Raise DataError when human ratings are too few.
    """
    settings = [judges.agreement, judges.agency, *([judges.heldout_judge] if judges.heldout else [])]
    names = {*list_judges(settings)} | ({judges.satisfaction} - {"none"})
    sources = open_sources(names - {SELF_JUDGE}, judges, {model.name: engine} if engine else {}, access, run)
    if SELF_JUDGE in names and engine is not None:
        # The policy that judges itself answers through the engine that plays, with its adapter of the moment.
        sources.local[SELF_JUDGE] = engine
    with ExitStack() as opened:
        opened.callback(sources.close)  # unless every judge could be built
        panel = _build(judges, sources)
        opened.pop_all()
    return panel


def _build(judges: JudgeConfig, sources: JudgeSources) -> Panel:
    return Panel(
        agreement=sources.build_agreement(judges.agreement),
        agency=_add_human_ratings(judges, sources),
        heldout_agreement=sources.build_agreement(judges.heldout_judge, "heldout") if judges.heldout else None,
        heldout_agency=sources.build_agency(judges.heldout_judge, "heldout") if judges.heldout else None,
        satisfaction=None if judges.satisfaction == "none" else sources.build_satisfaction(judges.satisfaction),
        sources=sources,
    )


def _add_human_ratings(judges: JudgeConfig, sources: JudgeSources) -> AgencyJudge:
    agency = sources.build_agency(judges.agency)
    if judges.human == "none":
        return agency
    human = build_human_judge(sources.load_base(EMBEDDED), Path(judges.human), judges.copy_limit)
    return mix_human_ratings(agency, human, judges.human_share)


def _answer(negotiation: Negotiation) -> Answer:
    assert negotiation.completion is not None
    return Answer(negotiation.scenario.dilemma, negotiation.completion.text)


def _reward(negotiation: Negotiation, verdict: Verdict | None, gated: bool) -> float | None:
    if negotiation.ending == "failed":
        return None
    if gated and negotiation.ending == "no_agreement":
        # No agreement is a true 0, unless a judge failed on the way and might have seen one.
        return None if any(check.agreed is None for check in negotiation.checks) else 0.0
    return verdict.score if verdict is not None else None
