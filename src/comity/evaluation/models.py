"""Compare several models from end to end: play, ask for preferences, compute all figures, write the logs of Inspect."""

import importlib.util
from collections.abc import Sequence
from contextlib import closing
from typing import TYPE_CHECKING, Any

from comity.config import EvaluateConfig
from comity.errors import ConfigError
from comity.evaluation.ability import answer_prompts, require_checker, summarize_ability
from comity.evaluation.contest import OnBatch, play_contest
from comity.judges.preference import prefer_by_score, recall_scores
from comity.runs import write_json
from comity.scenarios.rows import Row, read_whole_rows

if TYPE_CHECKING:
    from comity.evaluation.preferences import NamedPreferenceJudge

PACKAGES = (("choix", "study"), ("statsmodels", "study"), ("inspect_ai", "models"))
"""What the figures and the logs need, and the extra of the package that brings it."""


def evaluate_models(
    config: EvaluateConfig, on_batch: OnBatch | None = None, preference: "NamedPreferenceJudge | None" = None
) -> dict[str, Any]:
    """Compare the models that `config.models` names and return what `results.json` holds.

    Pairs of answers are compared by `preference`, else by the judge that `judges.preference` names, else by their
    stored scores: the held-out judge's where there is one.
    """
    require_packages()
    if config.ifeval != "none":
        require_checker()
    rows = play_contest(config, on_batch)
    if config.ifeval != "none":
        answer_prompts(config)
    return summarize_judged(config, rows, preference)


def summarize_judged(
    config: EvaluateConfig, rows: Sequence[Row], preference: "NamedPreferenceJudge | None" = None
) -> dict[str, Any]:
    """Do as `summarize_folder`, with the judge that `judges.preference` names where none is given."""
    name = config.judges.preference
    if preference is not None or name == "none":
        return summarize_folder(config, rows, preference)
    from comity.evaluation.preferences import NamedPreferenceJudge
    from comity.judges.named import open_sources

    with closing(open_sources((name,), config.judges, {}, config.access, str(config.out))) as sources:
        return summarize_folder(config, rows, NamedPreferenceJudge(name, sources.build_preference(name)))


def summarize_folder(
    config: EvaluateConfig, rows: Sequence[Row], preference: "NamedPreferenceJudge | None" = None
) -> dict[str, Any]:
    """Write results.json, preferences.jsonl and the logs of dialogues that were played; return the results."""
    from comity.evaluation.inspect_logs import write_inspect_logs
    from comity.evaluation.preferences import collect_preferences
    from comity.evaluation.results import summarize_contest

    judge = preference or prefer_stored_scores(rows, config.judges.heldout, config.tie_margin)
    models = list(dict.fromkeys(row["model"] for row in rows if row["model"] == row["opponent"]))
    preferences = collect_preferences(rows, models, judge, config.out / "preferences.jsonl")
    results: dict[str, Any] = {
        "models": models,
        "preference_judge": judge.name,
        "entries": summarize_contest(rows, preferences, config.seed),
    }
    if config.ifeval != "none":
        results["ifeval"] = summarize_ability(read_whole_rows(config.out / "ifeval.jsonl"), config.seed)
    write_json(config.out / "results.json", results)
    write_inspect_logs(rows, config.out / "inspect")
    return results


def prefer_stored_scores(rows: Sequence[Row], heldout: bool, margin: float) -> "NamedPreferenceJudge":
    """Return the pairwise judge that repeats the scores in the dialogues; a difference within `margin` is a tie."""
    from comity.evaluation.preferences import NamedPreferenceJudge

    key = "heldout_score" if heldout else "score"
    known = {(row["dilemma"], row["completion"]): row[key] for row in rows if row["completion"] is not None}
    name = f"{'held-out' if heldout else 'training'} score, margin {margin:g}"
    return NamedPreferenceJudge(name, prefer_by_score(recall_scores(known, name), margin))


def require_packages() -> None:
    """Raise ConfigError when a package that the comparison of models needs is not installed."""
    for package, extra in PACKAGES:
        if importlib.util.find_spec(package) is None:
            raise ConfigError(f"--models needs {package}: run `pip install 'comity[{extra}]'`")
