"""`comity demo` from end to end, as small as it goes (slow)."""

import json

import pytest

from comity.cli import main
from comity.config import DemoConfig, ModelConfig, TrainConfig
from comity.demo import SUMMARY_MEASURES, evaluation_settings

SMALL = (
    "--train.optimization.steps=1", "--train.optimization.scenarios_per_step=1", "--train.optimization.group_size=2",
    "--train.negotiation.rounds=1", "--train.negotiation.dialogue.max_tokens=8",
    "--train.negotiation.completion.max_tokens=8", "--train.threads=1", "--scenarios=2", "--samples=1",
)  # fmt: skip


def test_the_comparison_takes_the_newest_checkpoint_and_the_runs_own_rules(tmp_path):
    for step in (2, 10):
        (tmp_path / f"checkpoint-{step}").mkdir()
        (tmp_path / f"checkpoint-{step}" / "state.json").write_text("{}", encoding="utf-8")
    train = TrainConfig(threads=3, model=ModelConfig(adapter="warm-start"))
    settings = evaluation_settings(DemoConfig(run=tmp_path, split="dev", scenarios=5, samples=3, train=train))
    assert (settings.before, settings.after) == ("warm-start", str(tmp_path / "checkpoint-10"))
    assert settings.out == tmp_path / "evaluation"
    assert (settings.split, settings.scenarios, settings.samples, settings.seed) == ("dev", 5, 3, 1)
    assert (settings.model, settings.negotiation, settings.judges) == (train.model, train.negotiation, train.judges)
    assert settings.threads == 3


@pytest.mark.slow
def test_a_demo_runs_and_a_second_call_only_finishes(tmp_path, capsys):
    run = tmp_path / "demo"
    assert main(["demo", f"--run={run}", *SMALL]) == 0
    summary = json.loads((run / "summary.json").read_text(encoding="utf-8"))
    assert set(summary) == {"seconds", "peak_rss_gb", "steps", "seed", *SUMMARY_MEASURES}
    assert summary["steps"] == 1
    assert summary["seconds"] > 0
    assert 0.1 < summary["peak_rss_gb"] < 16
    comparison = json.loads((run / "evaluation" / "results.json").read_text(encoding="utf-8"))["comparison"]
    for measure in ("agreement_rate", "reward_mean", "rounds_mean"):
        figures = summary[measure]
        assert set(figures) >= {"before", "after", "difference", "low", "high", "n"}
        assert figures == comparison[measure]
        assert figures["n"] == 2  # two scenarios, one sample each; the shipped heads always give a word
        assert figures["low"] <= figures["difference"] <= figures["high"]
    assert summary["rounds_mean"]["before"] == summary["rounds_mean"]["after"] == 1.0
    page = (run / "report.html").read_text(encoding="utf-8")
    assert "<html" in page
    shown = capsys.readouterr().out.replace("\n", "")
    assert "summary.json" in shown

    kept = [run / "checkpoint-1" / "adapter_model.safetensors", run / "negotiations" / "step-000001.jsonl",
            run / "evaluation" / "before.jsonl", run / "evaluation" / "after.jsonl"]  # fmt: skip
    stamps = [path.stat().st_mtime_ns for path in kept]
    metrics = (run / "metrics.jsonl").read_bytes()
    assert len(metrics.splitlines()) == 1
    (run / "summary.json").unlink()
    (run / "report.html").unlink()
    assert main(["demo", f"--run={run}", *SMALL]) == 0
    assert [path.stat().st_mtime_ns for path in kept] == stamps
    assert (run / "metrics.jsonl").read_bytes() == metrics
    again = json.loads((run / "summary.json").read_text(encoding="utf-8"))
    assert {key: again[key] for key in SUMMARY_MEASURES} == {key: summary[key] for key in SUMMARY_MEASURES}
    # The time of the step that an earlier call took counts.
    assert again["seconds"] >= json.loads(metrics)["time/step_seconds"]
    assert (run / "report.html").read_text(encoding="utf-8").count("<svg") == page.count("<svg")
