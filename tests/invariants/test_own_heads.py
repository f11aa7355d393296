"""A run judged by heads on its own base, with a model behind an address for what they doubt."""

import pytest
from test_external_judges import judge, words

from comity.cli import main
from comity.config import JudgeConfig, ModelConfig
from comity.engines.local import LocalEngine
from comity.engines.models import load_model, load_tokenizer
from comity.judges.calibrate import CalibrateOptions, calibrate
from comity.judges.labels import Label
from comity.judges.named import JudgeSources
from comity.judges.panel import build_panel
from comity.runs import read_metrics, read_negotiations
from comity.types import Answer, RoundEnding
from loopback import MODEL, serve


def fit_heads(folder, out):
    """Fit a head of each kind on the model's hidden states; the labels mean little."""
    engine = LocalEngine(load_model(str(folder), "float32"), load_tokenizer(str(folder)))
    for kind in ("agency", "agreement"):
        rows = []
        for n in range(120):
            text, dilemma = " ".join(["yes"] * (n % 6) + ["well", "no", "then"][: 1 + n % 3]), f"Case {n // 3}?"
            item = Answer(dilemma, text) if kind == "agency" else RoundEnding(dilemma, "x", "y", "Shall we?", text)
            target = float(n % 6) if kind == "agency" else float(n % 6 > 2)
            part = "heldout" if n >= 90 else "train"
            rows.append(Label(str(n), item, target, str(n // 3), part, "", ""))
        calibrate(kind, engine, rows, out / f"{kind}_training.safetensors", 0, CalibrateOptions(model=str(folder)))


@pytest.mark.slow
def test_doubtful_rows_of_a_run_are_counted_and_paid_for(tmp_path, tiny_folder, monkeypatch):
    heads, run = tmp_path / "heads", tmp_path / "run"
    fit_heads(tiny_folder, heads)
    name = f"head:{heads}+{MODEL}"
    settings = {
        "judges.agreement": name, "judges.agency": name, "judges.ask_share": 0.5, "judges.heldout": "true",
        "judges.heldout_judge": MODEL, "optimization.agreement_gate": "false",
    }  # fmt: skip
    with serve(lambda call: judge(call.prompt)) as server:
        server.point(monkeypatch)
        assert main(words(tiny_folder, run, 2, **settings)) == 0
    rows = read_metrics(run)
    for kind in ("agreement", "agency"):
        # 8 rollouts, one round and one answer each.
        assert all(row[f"passed_on/{kind}_share"] == row[f"passed_on/{kind}"] / 8 for row in rows)
    assert sum(row["passed_on/agreement"] + row["passed_on/agency"] for row in rows) > 0
    # The watching model reads every row, those that were passed on to it before from the file of replies.
    assert sum(row["spend/calls"] for row in rows) == len(server.calls) == len(server.counts())
    assert all("score/heldout_mean" in row for row in rows)
    dialogues = [row for step in (1, 2) for row in read_negotiations(run / "negotiations" / f"step-00000{step}.jsonl")]
    assert all(row["score"] is not None for row in dialogues)


def test_a_head_reads_the_weights_of_the_policy(tmp_path, tiny_folder, monkeypatch):
    fit_heads(tiny_folder, tmp_path)
    engine = LocalEngine(load_model(str(tiny_folder), "float32"), load_tokenizer(str(tiny_folder)))
    judges = JudgeConfig(f"head:{tmp_path}", f"head:{tmp_path}", heldout=False)
    panel = build_panel(judges, engine, ModelConfig(name=str(tiny_folder)))
    assert isinstance(panel.sources, JudgeSources)
    assert panel.sources.bases == {str(tiny_folder): engine}
    assert panel.count_passed_on() == {}
