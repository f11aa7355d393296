"""The figures of one step: rewards, agreement, tokens, and what no judge scored."""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from comity.negotiation.protocol import is_solo, rounds_played
from comity.types import Judged


def count_sampled_tokens(judged: Judged) -> int:
    """Return how many tokens the models of a dialogue sampled: messages of both seats and the joint answer."""
    negotiation = judged.negotiation
    texts = [turn.completion for turn in negotiation.turns]
    if negotiation.completion is not None and negotiation.ending != "answered":  # a solo answer is its one turn
        texts.append(negotiation.completion)
    return sum(len(text.token_ids) for text in texts)


def summarize_rewards(
    judged: Sequence[Judged], rewards_SG: NDArray[np.float64], advantages_SG: NDArray[np.float64]
) -> dict[str, float]:
    """Return reward, agreement and zero-reward metrics of one step; means are over scored rollouts only."""
    flat, advantages = rewards_SG.ravel(), advantages_SG.ravel()
    scored = ~np.isnan(flat)
    metrics = {"unscored/share": float(1 - scored.mean())}
    if scored.any():
        metrics["reward/mean"] = float(flat[scored].mean())
    groups = [group[~np.isnan(group)] for group in rewards_SG if not np.isnan(group).all()]
    for name, reduce in (("min", np.min), ("mean", np.mean), ("max", np.max)):
        if groups:
            metrics[f"reward/group_{name}"] = float(np.mean([reduce(group) for group in groups]))
    agreed = np.array([item.negotiation.ending in ("agreed", "answered") for item in judged])
    spoken = np.array([not is_solo(item.negotiation.scenario) for item in judged])
    # Answers given alone agree with nobody: beside negotiations they do not count as agreement.
    told = scored & (spoken | ~spoken.any())
    flat_groups = np.repeat(~(advantages_SG != 0).any(axis=1), rewards_SG.shape[1])
    metrics |= {
        "agreement/rate": float(agreed[told].mean()) if told.any() else float("nan"),
        "zero/flat_groups": float(flat_groups.mean()),
        "zero/failed_in_mixed": float((~agreed & scored & ~flat_groups).mean()),
        "zero/used": float((agreed & (advantages != 0)).mean()),
    }
    metrics |= _means(
        {
            "agreement/rounds": [
                rounds_played(item.negotiation)
                for item, yes, counts in zip(judged, agreed, spoken | ~spoken.any(), strict=True)
                if yes and counts
            ],
            "agreement/heldout_rate": [j.heldout_agreed for j in judged if j.heldout_agreed is not None],
            "score/mean": [v.score for j in judged for v in j.verdicts if v.score is not None],
            "score/uncertainty": [v.uncertainty for j in judged for v in j.verdicts if v.uncertainty is not None],
            "score/heldout_mean": [j.heldout_score for j in judged if j.heldout_score is not None],
        }
    )
    return {key: value for key, value in metrics.items() if not np.isnan(value)}


def summarize_staleness(judged: Sequence[Judged], version: int) -> dict[str, float]:
    """Return how many versions the policy that spoke was behind the one that learns, `version`, over its messages."""
    spoken = [turn.completion for item in judged for turn in item.negotiation.turns if turn.seat == 0]
    behind = [version - completion.policy_version for completion in spoken if len(completion.token_ids)]
    return {"staleness/mean": float(np.mean(behind)), "staleness/max": float(max(behind))} if behind else {}


def _means(values: Mapping[str, Sequence[float]]) -> dict[str, float]:
    return {key: float(np.mean(items)) for key, items in values.items() if items}


def count_unwatched(judged: Sequence[Judged]) -> dict[str, float]:
    """Return the share of joint answers that the held-out judge gave no score; {} without any answer."""
    written = [
        item for item in judged if item.negotiation.completion is not None and item.negotiation.ending != "failed"
    ]
    if not written:
        return {}
    return {"unscored/heldout_share": sum(item.heldout_score is None for item in written) / len(written)}
