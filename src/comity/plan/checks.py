"""Everything of a training run that can be tried without loading its weights, one check after the other."""

import dataclasses
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from comity.config import TrainConfig
from comity.errors import ComityError, ConfigError, RunError
from comity.plan.architectures import count_parameters, find_architecture
from comity.plan.plan import adapter_rank
from comity.runs import check_run, describe_settings
from comity.scenarios.load import load_dilemmas, load_persona_pairs, load_questions
from comity.scenarios.steps import count_questions, replaces_dilemmas


@dataclass(frozen=True, slots=True)
class Check:
    """What was tried and what came of it: `detail` is the finding, or the error's one line when `passed` is false."""

    name: str
    passed: bool
    detail: str


def check_training(config: TrainConfig) -> Iterator[Check]:
    """Yield the outcome of each check; nothing is written, downloaded or asked of a paid model."""
    checks: tuple[tuple[str, Callable[[TrainConfig], str]], ...] = (
        ("dilemmas", _check_dilemmas),
        ("personas", _check_personas),
        ("questions", _check_questions),
        ("model", _check_model),
        ("chat template", _check_template),
        ("adapter", _check_adapter),
        ("device", _check_device),
        ("rollouts", _check_rollouts),
        ("judges", _check_judges),
        ("run directory", _check_run_directory),
        ("trackers", _check_trackers),
        ("launcher", _check_launcher),
        ("cluster", _check_cluster),
    )
    for name, check in checks:
        try:
            yield Check(name, True, check(config))
        except (ComityError, OSError) as error:
            yield Check(name, False, " ".join(str(error).split()))


def _check_dilemmas(config: TrainConfig) -> str:
    if replaces_dilemmas(config):
        return "not read: the questions stand in their place"
    return f"{len(load_dilemmas(config.dilemmas, 'train'))} of the split train in {config.dilemmas}"


def _check_personas(config: TrainConfig) -> str:
    return f"{len(load_persona_pairs(config.personas))} pairs in {config.personas}"


def _check_questions(config: TrainConfig) -> str:
    if config.questions == "none":
        return "none"
    count = count_questions(config.optimization.scenarios_per_step, config.question_share)
    place = "in place of dilemmas" if config.solo else f"{count} of a step's {config.optimization.scenarios_per_step}"
    return f"{len(load_questions(config.questions))} in {config.questions}, {place}"


def _check_model(config: TrainConfig) -> str:
    architecture = find_architecture(config.model.name)
    if config.model.quantization == "nf4" and find_spec("bitsandbytes") is None:
        raise ConfigError("model.quantization nf4 needs bitsandbytes: run `pip install comity[nf4]` or choose none")
    return f"{config.model.name}: {architecture.parameters:,} parameters"


def _check_template(config: TrainConfig) -> str:
    from comity.engines.models import EMBEDDED, embedded_is_ready, load_tokenizer

    name = config.model.name
    if name == EMBEDDED:
        if not embedded_is_ready():
            return "not checked: the embedded model is made at its first use"
    elif not Path(name).is_dir() and not _is_cached(name):
        return f"not checked: {name} is not in the local cache and will be downloaded"
    tokenizer = load_tokenizer(name)
    message = [{"role": "user", "content": "?"}]
    text = tokenizer.apply_chat_template(
        message, tokenize=False, add_generation_prompt=True, enable_thinking=config.model.thinking
    )
    return f"{len(tokenizer(text, add_special_tokens=False)['input_ids'])} tokens around and in a message of one"


def _is_cached(name: str) -> bool:
    from huggingface_hub import try_to_load_from_cache

    return isinstance(try_to_load_from_cache(name, "tokenizer_config.json"), str)


def _check_adapter(config: TrainConfig) -> str:
    if config.model.adapter == "none":
        return f"a fresh one of rank {config.model.lora_rank}"
    from comity.training.policy import adapter_folder, require_adapter

    require_adapter(adapter_folder(config.model))
    return f"{config.model.adapter} of rank {adapter_rank(config.model)}"


def _check_device(config: TrainConfig) -> str:
    from comity.training.policy import resolve_device

    return resolve_device(config.model.device)


def _check_rollouts(config: TrainConfig) -> str:
    from comity.training.serving import require_host

    settings = config.rollouts
    if config.cluster.kind == "ray":
        # What is installed here says nothing of the machines that they are placed on.
        return "vLLM in the rollout workers" if settings.engine == "vllm" else "the rollout workers"
    require_host(settings)
    if settings.servers:
        return f"{len(settings.servers)} vLLM servers, which are not reached for this"
    return "vLLM in this process" if settings.engine == "vllm" else "this process"


def _check_judges(config: TrainConfig) -> str:
    from comity.access import open_access
    from comity.judges.head import load_head
    from comity.judges.labels import Kind
    from comity.judges.named import HUGGING_FACE, Head, find_head, list_judges, place_judge
    from comity.judges.panel import SELF_JUDGE

    # The store is not opened: a file that is not there yet shall not appear.
    access = dataclasses.replace(config.access, cache="none")
    found: dict[str, str] = {}
    judges = config.judges
    wanted: list[tuple[Kind, Head, str]] = [
        ("agreement", "training", judges.agreement), ("agency", "training", judges.agency),
    ]  # fmt: skip
    if judges.heldout:
        wanted += [("agreement", "heldout", judges.heldout_judge), ("agency", "heldout", judges.heldout_judge)]
    for kind, which, setting in wanted:
        for name in list_judges([setting]):
            place = "the policy" if name == SELF_JUDGE else place_judge(name)
            if place == "external" and name not in found:
                open_access(name, access).close()
            elif place == "local":
                count_parameters(name.removeprefix(HUGGING_FACE))
            elif place == "head":
                load_head(find_head(name, kind, which))
            found[name] = place
    said = [f"{name} ({place})" for name, place in found.items()]
    if config.judges.human != "none":
        from comity.judges.human import read_human_ratings

        said.append(f"{len(read_human_ratings(Path(config.judges.human)))} human ratings")
    return ", ".join(said)


def _check_run_directory(config: TrainConfig) -> str:
    check_run(config.run, describe_settings(config), config.resume)
    place = config.run.absolute()
    while not place.exists():
        place = place.parent
    if not place.is_dir() or not os.access(place, os.W_OK | os.X_OK):
        raise RunError(f"run {config.run} cannot be written ({place}): choose another --run or mend its permissions")
    return f"{config.run} {'is continued' if (config.run / 'config.json').exists() else 'is new'}"


def _check_trackers(config: TrainConfig) -> str:
    for name in config.trackers:
        if find_spec(name) is None:
            raise ConfigError(f"trackers has {name!r}, which is not installed: run `pip install comity[{name}]`")
    return ", ".join(config.trackers) or "none besides metrics.jsonl"


def _check_launcher(config: TrainConfig) -> str:
    from comity.training.distributed import require_launcher, require_no_launcher
    from comity.training.sharding import wants_sharding
    from comity.training.trainer import require_work

    if config.cluster.kind == "ray":
        require_no_launcher()
        return "none, as Ray starts the trainers"
    processes = require_launcher(config.model.device)
    require_work(processes, config.optimization)
    sharded = ", each with a part of the base" if wants_sharding(config.model, processes) else ""
    return "none: one process" if processes == 1 else f"{processes} processes{sharded}"


def _check_cluster(config: TrainConfig) -> str:
    from comity.cluster import require_ray
    from comity.training.trainer import require_work

    settings = config.cluster
    if settings.kind == "none":
        return "none: this process, and those of a launcher"
    require_ray()
    require_work(settings.trainers, config.optimization)
    parts = f"{settings.trainers} trainers, {settings.workers} rollout workers and {settings.judges} judges"
    return f"{parts} under Ray at {settings.address}, which is not reached for this"
