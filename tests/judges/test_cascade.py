"""A head first, another judge for what it is unsure of: by hand, by name, and behind a real address."""

import dataclasses
import shutil

import pytest
from test_calibrate import agency_rows, agreement_rows, build_engine

from comity.config import AccessConfig, JudgeConfig
from comity.errors import ConfigError, ModelError
from comity.judges.calibrate import calibrate, calibrate_pair
from comity.judges.cascade import PassedOn, ask_first
from comity.judges.head import load_head, save_head
from comity.judges.named import find_head, hash_heads, list_judges, open_sources, place_judge, split_cascade
from comity.judges.reliability import is_doubtful
from comity.types import Answer, RoundEnding, Verdict
from loopback import MODEL, Act, serve


def unsure(items):
    """Say the length; the uncertainty is the length, too."""
    return [Verdict("first", "t", float(len(item)), uncertainty=float(len(item))) for item in items]


def test_doubtful_rows_get_the_other_verdict_in_place():
    asked, count = [], PassedOn()

    def other(items):
        asked.append(list(items))
        return [Verdict("other", "t", None if item == "ccc" else 9.0) for item in items]

    judge = ask_first(unsure, other, lambda verdict: verdict.uncertainty > 1.5, count)
    verdicts = judge(["bb", "a", "ccc"])
    assert [(verdict.judge, verdict.score) for verdict in verdicts] == [("other", 9.0), ("first", 1.0), ("other", None)]
    assert asked == [["bb", "ccc"]]
    assert (count.rows, count.passed) == (3, 2)
    assert [verdict.score for verdict in judge(["a", "a"])] == [1.0, 1.0]
    assert len(asked) == 1  # nobody is asked about nothing
    assert (count.rows, count.passed) == (5, 2)
    assert judge([]) == []


@pytest.mark.parametrize(
    ("name", "parts", "place"),
    [
        ("head:runs/heads", ("head:runs/heads", None), "head"),
        ("head:runs/heads+openai/gpt-4o-mini", ("head:runs/heads", "openai/gpt-4o-mini"), "head"),
        ("comity/embedded+hf/judge", ("comity/embedded", "hf/judge"), "embedded"),
        ("openai-api/one+two/model", ("openai-api/one+two/model", None), "external"),
    ],
)
def test_a_cascade_is_read_from_its_name(name, parts, place):
    assert split_cascade(name) == parts
    assert place_judge(name) == place


def test_all_judges_of_settings_are_listed_once():
    names = list_judges(["head:a+openai/x, comity/embedded", "openai/x"])
    assert names == ("head:a", "openai/x", "comity/embedded")


@pytest.mark.parametrize("name", ["head:a+", "head:a+comity/embedded", "head:a+head:b"])
def test_only_a_model_gets_what_is_passed_on(name):
    with pytest.raises(ConfigError, match="name a model after the"):
        split_cascade(name)


def test_settings_refuse_what_cannot_be():
    with pytest.raises(ConfigError, match=r"judges\.ask_share is 1\.5"):
        JudgeConfig(ask_share=1.5)
    with pytest.raises(ConfigError, match=r"judges\.heldout_judge is self"):
        JudgeConfig(heldout_judge="head:a+self")


@pytest.fixture(scope="module")
def engine():
    return build_engine(20)


@pytest.fixture(scope="module")
def folder(engine, tmp_path_factory):
    path = tmp_path_factory.mktemp("heads")
    for kind, rows in (("agency", agency_rows()), ("agreement", agreement_rows())):
        calibrate_pair(kind, engine, rows, path, seed=0, model="tiny")
    return path


def open_for(folder, engine, tmp_path, **changes):
    access = AccessConfig(cache=str(tmp_path / "v.sqlite"), retries=0)
    names = [f"head:{folder}+{MODEL}"]
    return open_sources(names, JudgeConfig(**changes), {"tiny": engine}, access, "run")


def test_a_folder_of_heads_is_a_judge(folder, engine, tmp_path):
    assert find_head(f"head:{folder}", "agency", "heldout") == folder / "agency_heldout.safetensors"
    sources = open_sources([f"head:{folder}"], JudgeConfig(), {"tiny": engine}, AccessConfig(cache="none"), "run")
    answers = [Answer("New?", "oak oak oak oak zzz oak"), Answer("New?", "zzz oak zzz zzz zzz zzz")]
    (low, high), (low_too, high_too) = (
        sources.build_agency(f"head:{path}")(answers) for path in (folder, folder / "agency_training.safetensors")
    )
    assert (low.score, high.score) == (low_too.score, high_too.score)
    assert low.judge == f"head:{folder}:training"
    assert low.score + 2 < high.score
    (watching,) = sources.build_agency(f"head:{folder}", "heldout")(answers[:1])
    assert watching.judge == f"head:{folder}:heldout"
    (agreed,) = sources.build_agreement(f"head:{folder}")([RoundEnding("New?", "x", "y", "Shall we?", "fir zzz elm")])
    assert agreed.agreed is True
    with pytest.raises(ModelError, match="cannot be loaded as a reward head"):
        sources.build_agency(f"head:{tmp_path / 'none'}")
    with pytest.raises(ModelError, match="judges agency, not agreement"):
        sources.build_agreement(f"head:{folder / 'agency_training.safetensors'}")


def test_only_doubtful_rows_are_paid_for(folder, engine, tmp_path, monkeypatch):
    name = f"head:{folder}+{MODEL}"
    answers = [row.item for row in agency_rows() if row.part == "heldout"]
    head = load_head(folder / "agency_training.safetensors")
    with serve(lambda call: Act("status", status=500) if len(server.calls) == 1 else "4\nfair") as server:
        server.point(monkeypatch)
        sources = open_for(folder, engine, tmp_path, ask_share=0.3)
        verdicts = sources.build_agency(name)(answers)
        spends = sources.read_spend()
        sources.close()
    alone = open_sources([f"head:{folder}"], JudgeConfig(), {"tiny": engine}, AccessConfig(cache="none"), "run")
    own = alone.build_agency(f"head:{folder}")(answers)
    doubtful = [is_doubtful(head, verdict, 0.3) for verdict in own]
    # These are the rows that the shares were taken on: 30 % of 60 are 18, less what a rule against copies decides.
    by_rule = sum(bool(verdict.text) for verdict in own)
    assert by_rule < 12
    assert 18 - by_rule <= sum(doubtful) <= 18
    assert [verdict.judge == MODEL for verdict in verdicts] == doubtful
    assert all(verdict == kept for verdict, kept, asked in zip(verdicts, own, doubtful, strict=True) if not asked)
    assert (sources.passed_on["agency"].rows, sources.passed_on["agency"].passed) == (60, sum(doubtful))
    distinct = len({answer for answer, asked in zip(answers, doubtful, strict=True) if asked})
    assert sum(spend.calls + spend.failed for spend in spends) == len(server.calls) == distinct
    # What the other judge failed at is unscored: the head's guess does not stand in for it.
    assert sum(verdict.score is None for verdict in verdicts) >= 1


def test_agreement_near_the_threshold_is_passed_on(folder, engine, tmp_path, monkeypatch):
    endings = [row.item for row in agreement_rows() if row.part == "heldout"]
    with serve(lambda call: "NO\nno plan") as server:
        server.point(monkeypatch)
        sources = open_for(folder, engine, tmp_path, ask_share=0.5)
        verdicts = sources.build_agreement(f"head:{folder}+{MODEL}")(endings)
        sources.close()
    asked = [verdict for verdict in verdicts if verdict.judge == MODEL]
    assert len(asked) == 30
    assert not any(verdict.agreed for verdict in asked)


def test_a_head_that_cannot_doubt_is_refused_before_it_judges(engine, tmp_path, monkeypatch):
    rows = [dataclasses.replace(row, part="train") for row in agency_rows()]
    head = calibrate("agency", engine, rows, tmp_path / "agency_training.safetensors")
    assert "reliability" not in head.metadata
    with serve(lambda call: "4") as server:
        server.point(monkeypatch)
        sources = open_for(tmp_path, engine, tmp_path)
        with pytest.raises(ModelError, match="does not know when to ask another judge"):
            sources.build_agency(f"head:{tmp_path}+{MODEL}")
        sources.close()


def test_named_heads_are_part_of_what_an_evaluation_depends_on(folder, tmp_path):
    shipped = hash_heads(JudgeConfig())
    named = JudgeConfig(agency=f"head:{folder}")
    assert hash_heads(JudgeConfig(agency=MODEL)) == shipped
    assert hash_heads(named) != shipped
    before = hash_heads(JudgeConfig(agency=f"head:{tmp_path}"))
    shutil.copy(folder / "agency_training.safetensors", tmp_path)
    copied = hash_heads(JudgeConfig(agency=f"head:{tmp_path}"))
    assert before == shipped != copied
    head = load_head(tmp_path / "agency_training.safetensors")
    save_head(dataclasses.replace(head, bias=head.bias + 1), tmp_path / "agency_training.safetensors")
    assert hash_heads(JudgeConfig(agency=f"head:{tmp_path}")) != copied
