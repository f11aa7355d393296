"""The judges of one run side by side: those that train, and those that only watch."""

from collections.abc import Sequence
from dataclasses import dataclass

from comity.config import JudgeConfig, ModelConfig
from comity.engines.local import LocalEngine
from comity.engines.models import EMBEDDED, load_model, load_tokenizer
from comity.errors import ConfigError
from comity.judges.embedded import build_agency_judge, build_agreement_judge, load_shipped_head
from comity.judges.llm import llm_agency_judge, llm_agreement_judge
from comity.judges.satisfaction import llm_satisfaction_judge
from comity.negotiation.protocol import is_solo, latest_round
from comity.types import AgencyJudge, AgreementJudge, Answer, Judged, Negotiation, SatisfactionJudge, Verdict

EMBEDDED_JUDGE = "comity/embedded"
SELF_JUDGE = "self"


@dataclass(frozen=True)
class Panel:
    """The training judges and, beside them, the held-out judges that never train anything."""

    agreement: AgreementJudge
    agency: AgencyJudge
    heldout_agreement: AgreementJudge | None = None
    heldout_agency: AgencyJudge | None = None
    satisfaction: SatisfactionJudge | None = None

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


def build_panel(judges: JudgeConfig, engine: LocalEngine, model: ModelConfig) -> Panel:
    """Build the judges that the settings name; embedded heads read the frozen base of `engine` when it is theirs.

    A judge named otherwise is a local model that answers the judges' prompts.
    """
    names = {judges.agreement, judges.agency}
    needs_base = EMBEDDED_JUDGE in names or judges.heldout
    base = engine if model.name == EMBEDDED or not needs_base else _plain_engine(EMBEDDED)
    # The policy that judges itself answers through the engine that plays, with its adapter of the moment.
    others = {SELF_JUDGE: engine} if judges.agency == SELF_JUDGE else {}
    ours = {EMBEDDED_JUDGE, SELF_JUDGE, "none"}
    others |= {name: _plain_engine(name) for name in sorted((names | {judges.satisfaction}) - ours)}
    limit = judges.copy_limit

    def agreement(which: str) -> AgreementJudge:
        return build_agreement_judge(base, load_shipped_head("agreement", which), limit)

    def agency(which: str) -> AgencyJudge:
        return build_agency_judge(base, load_shipped_head("agency", which), limit)

    return Panel(
        agreement=(
            agreement("training")
            if judges.agreement == EMBEDDED_JUDGE
            else llm_agreement_judge(others[judges.agreement], judges.agreement)
        ),
        agency=(
            agency("training")
            if judges.agency == EMBEDDED_JUDGE
            else llm_agency_judge(others[judges.agency], judges.agency)
        ),
        heldout_agreement=agreement("heldout") if judges.heldout else None,
        heldout_agency=agency("heldout") if judges.heldout else None,
        satisfaction=(
            None
            if judges.satisfaction == "none"
            else llm_satisfaction_judge(others[judges.satisfaction], judges.satisfaction)
        ),
    )


def _plain_engine(name: str) -> LocalEngine:
    if name.startswith("comity/"):
        raise ConfigError(f"judge {name!r} is unknown: the shipped one is {EMBEDDED_JUDGE}")
    return LocalEngine(load_model(name), load_tokenizer(name))


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
