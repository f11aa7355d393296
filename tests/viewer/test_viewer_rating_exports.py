"""What raters said is read by `judge audit`, by `judge calibrate` and by training: the files are the exported ones."""

import itertools
import json
import re

import pytest
import torch
from made_runs import judge_made, make_run, open_viewer, post, read_lines
from transformers import LlamaConfig, LlamaForCausalLM

from comity.cli import main
from comity.runs import negotiation_row, read_negotiations
from comity.scenarios.rows import write_rows
from tiny import build_model, build_tokenizer

pytestmark = pytest.mark.slow
ITEMS = 60
WORDS = ["share", "keep", "half", "all", "water", "rent"]


@pytest.fixture(scope="module")
def client(tmp_path_factory):
    """Return a client of a run with 60 answers on 60 dilemmas, judged 0 to 5 before and one more after."""
    root = tmp_path_factory.mktemp("viewer") / "runs"
    run = make_run(root / "small", steps=1)
    for side, gain in (("before", 0.0), ("after", 1.0)):
        rows = [
            negotiation_row(judge_made(f"case-{i:02d}/pair-0", 0, i % 5 + gain))
            | {"completion": " ".join(itertools.islice(itertools.cycle(WORDS[i % 6 :] + WORDS[: i % 6]), 4 + i % 9))}
            for i in range(ITEMS)
        ]
        write_rows(run / "evaluation" / f"{side}.jsonl", rows)
    return open_viewer(root, root.parent / "cache")


def rate_all(client, kind, values, source="after@small", other="before@small"):
    """Draw all 60 items, let each rater rate by a function of the item's place, and return the study's address.

    `values` is the function of each rater: from the number of the case to what is sent.
    """
    fields = {"kind": kind, "source": source, "other": other, "count": str(ITEMS), "seed": "1"}
    study = post(client, "/rate/studies", **fields).headers["location"]
    for rater, value in values.items():
        post(client, "/rate/name", name=rater)
        while (found := re.search(rf"{study}/items/([^\"]+)", page := client.get(study).text)) is not None:
            case = int(re.search(r"garden of case-(\d+)", page)[1])
            assert post(client, f"{study}/items/{found[1]}", value=value(case)).status_code == 303
    return study


def save(client, address, path):
    answer = client.get(address)
    assert answer.status_code == 200
    path.write_bytes(answer.content)
    return path


@pytest.fixture(scope="module")
def rated(client):
    """Return the study of 60 answers that Ada scores as the training judge does and Bo always one lower."""
    return rate_all(client, "agency", {"Ada": lambda case: str(case % 5 + 1), "Bo": lambda case: str(case % 5)})


def audit(out, *words):
    assert main(["judge", "audit", "--out", str(out), "--resamples", "20", *map(str, words)]) == 0
    return json.loads((out / "audit.json").read_text(encoding="utf-8"))


def test_the_audit_reads_ratings_beside_the_judges_that_the_run_had(client, rated, tmp_path, capsys):
    path = save(client, f"{rated}/audit.jsonl", tmp_path / "ratings.jsonl")
    columns = ("--column", "training=score", "--column", "held-out=heldout_score")
    found = audit(tmp_path / "out", "--kind", "agency", "--rows", path, "--human", "ratings", *columns)
    assert (found["rows"], found["dilemmas"]) == (ITEMS, ITEMS)
    raters = {rater["rater"]: rater for rater in found["raters"]}
    # The judge says case % 5 + 1, whose mean is 3; the mean of Ada and Bo is half a point lower.
    assert raters["training"]["mean"]["value"] == pytest.approx(3.0)
    assert raters["human"]["mean"]["value"] == pytest.approx(2.5)
    (pair,) = [pair for pair in found["pairs"] if {pair["first"], pair["second"]} == {"human", "training"}]
    assert pair["pearson"]["value"] == pytest.approx(1.0)
    assert "human" in capsys.readouterr().out


def test_the_audit_reads_agreement_ratings(client, tmp_path):
    study = rate_all(client, "agreement", {"Ada": lambda case: "1", "Bo": lambda case: str(int(case % 3 > 0))})
    path = save(client, f"{study}/audit.jsonl", tmp_path / "ratings.jsonl")
    columns = ("--column", "training=agreed")
    found = audit(tmp_path / "out", "--kind", "agreement", "--rows", path, "--human", "ratings", *columns)
    mean = next(rater["mean"] for rater in found["raters"] if rater["rater"] == "human")
    # Where Bo says no the two are divided, which is unscored: 20 of 60.
    assert (mean["value"], mean["n"], mean["n_unscored"]) == (1.0, 40, 20)


def test_the_audit_reads_comparisons(client, tmp_path):
    study = rate_all(client, "preference", {"Ada": lambda case: "0.5" if case < 10 else "left"})
    path = save(client, f"{study}/labels.jsonl", tmp_path / "pairs.jsonl")
    rows = read_lines(path.read_text(encoding="utf-8"))
    assert sum(row["preferred"] == "tie" for row in rows) == 10
    found = audit(
        tmp_path / "out", "--kind", "agency", "--pairwise", f"people={path}", "--own", "people=small after"
    )  # fmt: skip
    (people,) = found["pairwise"]
    assert people["verdicts"] == ITEMS
    # Who always takes the left one takes the answer after training as often as it stood left.
    left = [row["first"] == "a" for row in rows if row["preferred"] != "tie"]
    assert rows[0]["author_a"] == "small after"
    assert people["own"]["value"] == pytest.approx(sum(left) / len(left))


def save_deep(folder):
    """Write a random model with as many layers as heads need; return its folder."""
    config = LlamaConfig.from_dict(build_model().config.to_dict() | {"num_hidden_layers": 20})
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        LlamaForCausalLM(config).save_pretrained(folder)
    build_tokenizer().save_pretrained(folder)
    return folder


def test_calibration_fits_heads_on_ratings(client, rated, tmp_path, capsys):
    path = save(client, f"{rated}/labels.jsonl?part=train", tmp_path / "labels.jsonl")
    model = save_deep(tmp_path / "deep")
    words = ("--kind", "agency", "--labels", path, "--model", model, "--out", tmp_path / "heads")
    assert main(["judge", "calibrate", *map(str, words)]) == 0
    names = {item.name for item in (tmp_path / "heads").iterdir()}
    assert names == {"agency_training.safetensors", "agency_heldout.safetensors"}
    # Both raters' rows, divided between the two heads by dilemma: about 65 to 35 of 120.
    counts = [int(count) for count in re.findall(r"on (\d+) rows", capsys.readouterr().out)]
    assert sum(counts) == 2 * ITEMS
    assert counts[0] > counts[1] > 20


@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_training_mixes_ratings_into_the_reward(client, rated, tmp_path, capsys):
    path = save(client, f"{rated}/labels.jsonl?part=train", tmp_path / "labels.jsonl")
    run = tmp_path / "run"
    settings = {
        "run": run, "threads": 1, "judges.human": path, "judges.human_share": 0.4, "judges.heldout": "false",
        "negotiation.rounds": 1, "negotiation.dialogue.max_tokens": 6, "negotiation.completion.max_tokens": 12,
        "optimization.steps": 1, "optimization.scenarios_per_step": 1, "optimization.group_size": 2,
        "optimization.agreement_gate": "false",
    }  # fmt: skip
    assert main(["train", *(f"--{name}={value}" for name, value in settings.items())]) == 0
    rows = read_negotiations(run / "negotiations" / "step-000001.jsonl")
    assert len(rows) == 2
    for row in rows:
        said = re.search(r"training (\S+)(?: \(.*\))?, human ratings (\S+) with a share of 0.4", row["reasons"][0])
        judge, people = float(said[1]), float(said[2])
        assert row["reward"] == pytest.approx(0.6 * judge + 0.4 * people, abs=2e-3)
    recorded = json.loads((run / "config.json").read_text(encoding="utf-8"))["settings"]["judges"]
    assert recorded["human"].startswith(f"{path} sha256:")
