"""The models that judges load beside the policy: local ones that answer prompts, and the bases of heads."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from comity.config import TrainConfig
from comity.plan.architectures import count_parameters

if TYPE_CHECKING:
    from comity.judges.labels import Kind
    from comity.judges.named import Head

EMBEDDED_JUDGE = "comity/embedded"
EMBEDDED = "embedded"
"""The model that the shipped heads, and those fitted on human ratings, read."""


@dataclass(frozen=True, slots=True)
class JudgeModels:
    """Each is loaded once, in bfloat16 on the CPU whatever `model.device` says."""

    loaded: tuple[str, ...] = ()
    reads_policy: bool = False
    """Heads read the policy's own base without its adapter."""


def find_judge_models(config: TrainConfig) -> JudgeModels:
    """Return what the judges of one training process load; raise ComityError for a head that cannot be read.

    Under Ray they live in judge workers and not in the trainer.
    """
    if config.cluster.kind == "ray":
        return JudgeModels()
    bases = _find_heads(config)
    answering = _find_local(config) if _needs_names(config) else ()
    if config.judges.human != "none":
        bases.add(EMBEDDED)
    reads_policy = config.model.name in bases
    return JudgeModels((*sorted(bases - {config.model.name}), *answering), reads_policy)


def judge_bytes(models: JudgeModels) -> float:
    """Return the bytes of the loaded models; a Llama is kept in oneDNN's layout too, its output layer included."""
    total = 0.0
    for name in models.loaded:
        parameters, architecture = count_parameters(name)
        total += 2.0 * parameters
        if architecture is not None and architecture.llama:
            total += 2.0 * (architecture.linear_parameters + architecture.head_parameters)
    return total


def _settings(config: TrainConfig) -> "list[tuple[Kind, Head, str]]":
    judges = config.judges
    found: list[tuple[Kind, Head, str]] = [
        ("agreement", "training", judges.agreement), ("agency", "training", judges.agency),
    ]  # fmt: skip
    if judges.heldout:
        found += [("agreement", "heldout", judges.heldout_judge), ("agency", "heldout", judges.heldout_judge)]
    return found


def _needs_names(config: TrainConfig) -> bool:
    named = {setting for _, _, setting in _settings(config)}
    return named != {EMBEDDED_JUDGE} or config.judges.satisfaction != "none"


def _find_heads(config: TrainConfig) -> set[str]:
    if not _needs_names(config):
        return {EMBEDDED}
    from comity.judges.head import load_head
    from comity.judges.named import find_head, list_judges, place_judge

    bases = set()
    for kind, which, setting in _settings(config):
        for name in list_judges([setting]):
            place = place_judge(name)
            if place == "embedded":
                bases.add(EMBEDDED)
            elif place == "head":
                bases.add(load_head(find_head(name, kind, which)).model)
    return bases


def _find_local(config: TrainConfig) -> tuple[str, ...]:
    from comity.judges.named import HUGGING_FACE, list_judges, place_judge
    from comity.judges.panel import SELF_JUDGE

    satisfaction = {config.judges.satisfaction} - {"none"}
    names = list_judges([*(setting for _, _, setting in _settings(config)), *satisfaction])
    local = [name for name in names if name != SELF_JUDGE and place_judge(name) == "local"]
    return tuple(name.removeprefix(HUGGING_FACE) for name in local)
