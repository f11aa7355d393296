"""Play held-out scenarios with two adapters of one model and compare them, paired."""

import dataclasses
import functools
import gc
import hashlib
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path

import torch
from transformers import PreTrainedModel

from comity.config import EvaluateConfig, ModelConfig, to_plain
from comity.engines.allocator import give_back_freed_memory
from comity.engines.local import LocalEngine
from comity.engines.models import load_model, load_tokenizer
from comity.evaluation.players import find_adapters, hash_adapter
from comity.evaluation.statistics import compare
from comity.judges.named import hash_heads
from comity.judges.panel import Panel, build_panel
from comity.judges.signs import summarize_signs
from comity.negotiation.lockstep import play
from comity.negotiation.protocol import start
from comity.runs import negotiation_row, read_json, read_negotiations, write_json
from comity.scenarios.load import fixed_scenarios, load_dilemmas, load_persona_pairs
from comity.scenarios.rows import Row, write_rows
from comity.training.policy import adapter_folder, attach_adapter, resolve_device
from comity.types import Negotiation, Scenario

OnProgress = Callable[[str, Sequence[Negotiation]], None]
FREE = (
    "before", "after", "out", "threads", "models", "tasks", "open_ended", "transfer", "runs", "decoding", "pairs",
    "batch", "tie_margin", "access", "ifeval", "ifeval_tokens", "alone", "limit",
)  # fmt: skip
"""Settings that do not change the dialogues of one side."""


def evaluate(config: EvaluateConfig, on_progress: OnProgress | None = None) -> dict[str, object]:
    """Play all scenarios with both adapters and return the paired comparison with intervals.

    Both sides play the same scenarios with the same personas and seeds, in self-play; a joint answer is written
    whether or not they agreed (paper, section 4). Writes before.jsonl, after.jsonl and results.json into
    `config.out`; a side whose file is whole and belongs to the same adapter and settings is not played again.
    """
    if config.threads:
        torch.set_num_threads(config.threads)
    scenarios = fixed_scenarios(
        load_dilemmas(config.dilemmas, config.split), load_persona_pairs(config.personas), config.scenarios
    )
    # A mistyped second adapter shall not cost the dialogues of the first.
    find_adapters(config.model, {"before": config.before, "after": config.after})
    for name, adapter in (("before", config.before), ("after", config.after)):
        key = _side_key(config, adapter)
        if _is_played(config.out, name, key, len(scenarios) * config.samples):
            continue
        progress = None if on_progress is None else functools.partial(on_progress, name)
        rows = _play_side(config, adapter, scenarios, progress)
        gc.collect()  # modules refer to each other in circles: without it two models would lie in memory
        give_back_freed_memory()
        (config.out / f"{name}.settings.json").unlink(missing_ok=True)  # it belongs to the file replaced next
        write_rows(config.out / f"{name}.jsonl", rows)
        write_json(config.out / f"{name}.settings.json", key)
    return compare_files(config.out, config.seed)


def _play_side(
    config: EvaluateConfig,
    adapter: str,
    scenarios: Sequence[Scenario],
    on_progress: Callable[[Sequence[Negotiation]], None] | None,
) -> list[Row]:
    model = load_adapted(config.model, adapter)
    engine = LocalEngine(model, load_tokenizer(config.model.name), config.model.thinking)
    with closing(build_panel(config.judges, engine, config.model, config.access, str(config.out))) as panel:
        return play_scenarios(config, scenarios, engine, panel, on_progress)


def _side_key(config: EvaluateConfig, adapter: str) -> dict[str, object]:
    # What the dialogues of one side depend on: the settings and the adapter's bytes.
    settings = {key: value for key, value in to_plain(config).items() if key not in FREE}
    for name in ("dilemmas", "personas"):
        if settings[name] != "shipped":
            settings[name] = hashlib.sha256(Path(settings[name]).read_bytes()).hexdigest()
    weights = hash_adapter(config.model, adapter)
    return {"settings": settings, "adapter_sha256": weights, "heads_sha256": hash_heads(config.judges)}


def _is_played(out: Path, name: str, key: dict[str, object], count: int) -> bool:
    if not (out / f"{name}.settings.json").is_file() or not (out / f"{name}.jsonl").is_file():
        return False
    same = bool(read_json(out / f"{name}.settings.json") == key)
    return same and len(read_negotiations(out / f"{name}.jsonl")) == count


def play_scenarios(
    config: EvaluateConfig,
    scenarios: Sequence[Scenario],
    engine: LocalEngine,
    panel: Panel,
    on_progress: Callable[[Sequence[Negotiation]], None] | None = None,
) -> list[Row]:
    """Return one negotiation row for each scenario and sample."""
    states = [start(scenario, sample) for scenario in scenarios for sample in range(config.samples)]

    def watch(going: Sequence[Negotiation]) -> None:
        give_back_freed_memory()  # messages, verdicts and answers leave holes of other sizes
        if on_progress is not None:
            on_progress(going)

    played = play(
        states,
        config.negotiation,
        engine,
        panel.agreement,
        seed=config.seed,
        always_complete=True,
        on_progress=watch,
    )
    return [negotiation_row(item) for item in panel.judge(played)]


def compare_files(out: Path, seed: int) -> dict[str, object]:
    """Compare `out/before.jsonl` with `out/after.jsonl`, write `out/results.json` and return its content."""
    before, after = read_negotiations(out / "before.jsonl"), read_negotiations(out / "after.jsonl")
    results: dict[str, object] = {
        "comparison": compare(before, after, seed),
        "signs": {"before": summarize_signs(before), "after": summarize_signs(after)},
    }
    write_json(out / "results.json", results)
    return results


def load_adapted(settings: ModelConfig, adapter: str) -> PreTrainedModel:
    """Load the base model with an adapter for playing: none, warm-start or a PEFT folder."""
    base = load_model(settings.name, settings.dtype, resolve_device(settings.device), settings.quantization)
    if adapter == "none":
        return base
    return attach_adapter(base, adapter_folder(dataclasses.replace(settings, adapter=adapter)))
