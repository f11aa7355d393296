"""From an expensive judge's verdicts to a head that is asked first, through the commands alone."""

import json

import pytest

from comity.cli import main
from comity.judges.head import load_head
from comity.scenarios.rows import write_rows
from loopback import MODEL, serve
from tiny import save_tiny_encoder

pytestmark = pytest.mark.slow

WORDS = ("oak", "elm", "ivy", "fir", "yew", "ash")


def answers(first, last):
    """Return answers of six words, 0 to 5 of which are "zzz": that many points the expensive judge gives."""
    return [
        {"id": f"r{n}", "dilemma": f"Case {n // 3}?", "answer": " ".join(["zzz"] * (n % 6) + [*WORDS][n % 6 :])}
        for n in range(first, last)
    ]


def run(*words):
    return main([str(word) for word in words])


@pytest.fixture
def expensive(monkeypatch):
    """Serve a judge that counts "zzz"; it gives no verdict on the three rows of one case."""

    def script(call):
        if "Case 4?" in call.prompt:
            return "I would rather not say."
        return f"{call.prompt.count('zzz')}\ncounted"

    with serve(script) as server:
        server.point(monkeypatch)
        yield server


def test_a_judge_is_distilled_and_asked_only_when_in_doubt(tmp_path, tiny_folder, expensive, capsys):
    rows, labels, out = tmp_path / "rows.jsonl", tmp_path / "labels.jsonl", tmp_path / "heads"
    write_rows(rows, answers(0, 240))
    cache = ("--access.cache", tmp_path / "v.sqlite")
    score = ("judge", "score", "--kind", "agency")
    assert run(*score, "--input", rows, "--output", labels, "--model", MODEL, *cache) == 0
    assert "237 of 240 rows judged" in capsys.readouterr().out
    calibrate = ("judge", "calibrate", "--kind", "agency", "--labels", labels, "--model", tiny_folder, "--out", out)
    assert run(*calibrate, "--single", "--device", "cpu") == 0
    told = " ".join(capsys.readouterr().out.split())
    assert "3 rows without a label are left out" in told
    assert "head says n mean said mean true within 68 % within 95 %" in told
    assert "passed on when kept error of the kept error of all" in told
    assert f"one head written; judge with head:{out}" in told
    head = load_head(out / "agency_training.safetensors")
    assert head.model == str(tiny_folder)
    figures = head.metadata
    assert figures["rows_train"] + figures["rows_heldout"] == 237
    assert figures["reliability"][-1]["n"] == figures["rows_heldout"]

    write_rows(rows, answers(240, 300))
    paid = len(expensive.calls)
    cheap = (*score, "--input", rows, "--output", tmp_path / "out.jsonl", *cache)
    assert run(*cheap, "--model", f"head:{out}") == 0
    assert len(expensive.calls) == paid
    assert run(*cheap, "--model", f"head:{out}+{MODEL}") == 0
    told = " ".join(capsys.readouterr().out.split())
    asked = len(expensive.calls) - paid
    assert 0 < asked < 60
    found = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text("utf-8").splitlines()]
    counted = [row for row in found if row.get("reason") in ("counted", "no verdict in the reply")]
    assert f"{len(counted)} of 60 rows passed on" in told
    assert asked == len({(row["dilemma"], row["answer"]) for row in counted})


def test_two_heads_need_a_deeper_model(tmp_path, tiny_folder, capsys):
    labels = tmp_path / "labels.jsonl"
    write_rows(labels, [row | {"score": row["answer"].count("zzz")} for row in answers(0, 240)])
    words = ("judge", "calibrate", "--kind", "agency", "--labels", labels, "--model", tiny_folder)
    assert run(*words, "--out", tmp_path / "heads", "--device", "cpu") == 2
    assert "choose a deeper model, or fit one head with --single" in capsys.readouterr().err


def test_a_model_without_a_chat_template_can_be_the_encoder(tmp_path, tiny_folder, capsys):
    folder, labels = tmp_path / "plain", tmp_path / "labels.jsonl"
    folder.mkdir()
    for path in tiny_folder.iterdir():
        if path.name != "chat_template.jinja":
            (folder / path.name).write_bytes(path.read_bytes())
    write_rows(labels, [row | {"score": row["answer"].count("zzz")} for row in answers(0, 240)])
    words = ("judge", "calibrate", "--kind", "agency", "--labels", labels, "--model", folder, "--out", tmp_path / "h")
    assert run(*words, "--single", "--device", "cpu") == 0


def test_an_encoder_of_another_build_carries_a_head(tmp_path, capsys):
    folder, labels, out = save_tiny_encoder(tmp_path / "bert"), tmp_path / "labels.jsonl", tmp_path / "h"
    rows = [row | {"score": row["answer"].count("zzz")} for row in answers(0, 240)]
    write_rows(labels, rows)
    words = ("judge", "calibrate", "--kind", "agency", "--labels", labels, "--model", folder, "--out", out)
    assert run(*words, "--single", "--device", "cpu") == 0
    scored = tmp_path / "scored.jsonl"
    write_rows(labels, [*rows, rows[0] | {"id": "long", "answer": "zzz oak " * 250}])
    words = ("judge", "score", "--kind", "agency", "--input", labels, "--output", scored)
    assert run(*words, "--model", f"head:{out}/agency_training.safetensors") == 0
    assert "241 of 241 rows judged" in capsys.readouterr().out
