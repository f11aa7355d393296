"""The embedded judges: a reward head on the frozen base model's hidden states, and the copy rules."""

from collections.abc import Sequence
from importlib import resources
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from comity.engines.local import LocalEngine
from comity.errors import ModelError
from comity.judges.copying import find_answer_copy, find_ending_copy
from comity.judges.features import TEMPLATES, extract_features
from comity.judges.head import RewardHead, load_head
from comity.judges.labels import Kind
from comity.prompts import hash_template, neutralise
from comity.types import AgencyJudge, AgreementJudge, Answer, RoundEnding, Verdict

EMBEDDED_JUDGE = "comity/embedded"


def shipped_head(kind: Kind, which: str) -> Path:
    """Return the path of a shipped head; `which` is `training` or `heldout`."""
    return Path(str(resources.files(__package__).joinpath("heads", f"{kind}_{which}.safetensors")))


def shipped_heads() -> list[Path]:
    """Return the paths of all shipped heads in a fixed order."""
    return [shipped_head(kind, which) for kind in ("agency", "agreement") for which in ("training", "heldout")]


def load_shipped_head(kind: Kind, which: str) -> RewardHead:
    """Load a shipped head: `training` gives rewards, `heldout` never trains anything; raise ModelError if damaged."""
    return load_head(shipped_head(kind, which))


def build_agreement_judge(
    engine: LocalEngine, head: RewardHead, copy_limit: float, name: str = EMBEDDED_JUDGE
) -> AgreementJudge:
    """Return a judge of round endings; an empty message or a copy is not agreed, with probability 0."""
    _check_head(head, "agreement")

    def judge(endings: Sequence[RoundEnding]) -> list[Verdict]:
        reasons = [_refuse_ending(ending, copy_limit) for ending in endings]
        scores, stds = score_items(engine, head, endings, reasons)
        return [
            Verdict(
                judge=f"{name}:{head.name}",
                template_hash=hash_template(TEMPLATES["agreement"]),
                score=float(score),
                text=reason,
                agreed=bool(not reason and score >= head.threshold),
                uncertainty=float(std),
            )
            for score, std, reason in zip(scores, stds, reasons, strict=True)
        ]

    return judge


def build_agency_judge(
    engine: LocalEngine, head: RewardHead, copy_limit: float, name: str = EMBEDDED_JUDGE
) -> AgencyJudge:
    """Return a judge of answers, 0 to 5; an empty answer or a copy scores 0."""
    _check_head(head, "agency")

    def judge(answers: Sequence[Answer]) -> list[Verdict]:
        reasons = [_refuse_answer(answer, copy_limit) for answer in answers]
        scores, stds = score_items(engine, head, answers, reasons)
        return [
            Verdict(
                judge=f"{name}:{head.name}",
                template_hash=hash_template(TEMPLATES["agency"]),
                score=float(score),
                text=reason,
                uncertainty=float(std),
            )
            for score, std, reason in zip(scores, stds, reasons, strict=True)
        ]

    return judge


def score_items(
    engine: LocalEngine, head: RewardHead, items: Sequence[Answer | RoundEnding], reasons: Sequence[str]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return scores (N,) and standard deviations (N,); a row with a reason to refuse it gets 0 and is not encoded."""
    scores, stds = np.zeros(len(items)), np.zeros(len(items))
    kept = [i for i, reason in enumerate(reasons) if not reason]
    if kept:
        features = extract_features(engine, head.kind, [items[i] for i in kept], head.layers, head.pooling)
        scores[kept], stds[kept] = head.predict(features)
    return scores, stds


def _refuse_ending(ending: RoundEnding, copy_limit: float) -> str:
    if not neutralise(ending.message_a) or not neutralise(ending.message_b):
        return "a message is empty"
    return find_ending_copy(ending.message_a, ending.message_b, copy_limit)


def _refuse_answer(answer: Answer, copy_limit: float) -> str:
    if not neutralise(answer.answer):
        return "the answer is empty"
    return find_answer_copy(answer.answer, answer.dilemma, copy_limit)


def _check_head(head: RewardHead, kind: Kind) -> None:
    if head.kind != kind:
        raise ModelError(f"head {head.name!r} judges {head.kind}, not {kind}: give a head of the right kind")
    fitted = head.metadata.get("template_hash")
    if fitted != hash_template(TEMPLATES[kind]):
        raise ModelError(
            f"head {head.name!r} was fitted with another prompt {TEMPLATES[kind]} ({fitted}): calibrate it again"
        )
