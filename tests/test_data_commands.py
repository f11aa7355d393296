"""`comity data ...`: each user's error is one line, each command does its work."""

import json

import pytest

from comity.cli import main
from comity.scenarios.kinds import read_kind
from comity.scenarios.rows import write_rows
from loopback import MODEL, Act, serve
from test_cli import complain

ROW = {
    "id": "d",
    "tier": "everyday",
    "domain": "home",
    "dilemma": "Two flats share one cooker and one pan.",
    "split": "dev",
}


def run(capsys, *words):
    assert main([str(word) for word in words]) == 0
    return " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("data", "the following arguments are required: COMMAND"),
        ("data validate none.jsonl", "none.jsonl: cannot be read (No such file or directory)"),
        ("data validate --kind poems none.jsonl", "kind 'poems' is unknown: choose among dilemmas"),
        ("data validate --threshold 2", "threshold is 2.0: choose a number above 0 and at most 1"),
        ("data show none.jsonl", "none.jsonl: cannot be read"),
        ("data show --rows -1", "--rows is -1: choose 0 or more"),
        ("data show --seed -1", "--seed is -1: choose 0 or more"),
        ("data quality --seed -1", "--seed is -1: choose 0 or more"),
        ("data quality open-ended --model ./none", "model './none' cannot be loaded"),
        ("data import", "the following arguments are required: FORMAT"),
        ("data import casino --out x.jsonl", "the following arguments are required: --input"),
        ("data import casino --input none.json --out x.jsonl", "--input none.json: is no CaSiNo file"),
        ("data import jsonl --kind poems --input a --out b", "kind 'poems' is unknown"),
        (
            "data import jsonl --kind dilemmas --field x --input a --out b",
            "--field x: has no name and value; give --fi",
        ),
        ("data generate --kind open-ended --count 1 --model m --out x", "invalid choice: 'open-ended'"),
        ("data generate --kind dilemmas --count 0 --model m --out x", "--count is 0: choose 1 or more"),
        ("data generate --kind dilemmas --count 1 --model m --out x", "model 'm' has no known provider"),
        (
            "data generate --kind dilemmas --count 1 --model openai-api/none/x --out x --tokens-per-minute -1",
            "access.tokens_per_minute is -1: choose 0 or more",
        ),
        (
            "data generate --kind dilemmas --count 1 --model openai-api/none/x --out x --max-spend 1",
            "has no price: give",
        ),
    ],
)
def test_a_user_error_is_one_line(capsys, tmp_path, monkeypatch, words, message):
    monkeypatch.chdir(tmp_path)
    assert message in complain(capsys, *words.split())
    assert list(tmp_path.iterdir()) == []


def test_the_shipped_files_are_valid(capsys):
    out = run(capsys, "data", "validate")
    assert "1822 texts compared: 0 exact and 0 near duplicates (similarity 0.3 or more), 0 of them across files" in out
    assert "shipped dilemmas" in out
    assert "1100" in out


def test_bad_rows_and_duplicates_are_listed_and_counted(capsys, tmp_path):
    shipped = read_kind("shipped", "dilemmas")[0]
    mine, other = tmp_path / "mine.jsonl", tmp_path / "other.jsonl"
    write_rows(mine, [ROW, ROW | {"id": "e", "tier": "none"}, ROW | {"id": "f", "split": "test"}])
    write_rows(other, [shipped])
    words = ["data", "validate", str(mine), str(other), "--with-shipped"]
    assert main(words) == 2
    out, err = capsys.readouterr()
    out = " ".join(out.split())
    assert f"{mine}, line 2, field tier: is 'none'; choose among professional, interpersonal, everyday" in out
    assert f"{mine} f dilemma (test): the same text as {mine} d dilemma (dev), across splits" in out
    assert f"{other} {shipped['id']} dilemma ({shipped['split']}): the same text as shipped dilemmas" in out
    assert err == "comity: error: 3 problems in the data, listed above: mend or remove these rows\n"
    assert main([*words[:-1], "--rows-only"]) == 2
    assert capsys.readouterr().err.startswith("comity: error: 1 problems in the data")
    assert main(["data", "validate", str(other)]) == 0  # alone it repeats nothing


def test_a_long_list_of_problems_is_cut(capsys, tmp_path):
    write_rows(tmp_path / "mine.jsonl", [ROW | {"id": str(n)} for n in range(30)])
    assert main(["data", "validate", str(tmp_path / "mine.jsonl")]) == 2
    out, err = capsys.readouterr()
    assert out.count("the same text as") == 20
    assert "29 problems in the data, listed above; 9 more are not shown" in err


def test_show_counts_draws_and_lists(capsys, tmp_path):
    out = run(capsys, "data", "show", "--rows", "2", "--seed", "3")
    assert "shipped dilemmas: 1100 rows" in out
    assert "│ professional │ 257 │ 37 │ 73 │ 367 │" in out
    assert "132 domains: pets 18" in out
    assert "█" in out
    assert "nearest neighbours" in out
    assert "random rows (seed 3)" in out
    assert out == run(capsys, "data", "show", "--rows", "2", "--seed", "3")
    assert out != run(capsys, "data", "show", "--rows", "2", "--seed", "4")
    out = run(capsys, "data", "show", "transfer", "--rows", "0", "--neighbours", "0")
    assert "stakeholders: 10 cases of 2, 20 cases of 3, 18 cases of 4, 12 cases of 5" in out
    assert "random rows" not in out
    assert "nearest neighbours" not in out


def test_show_a_file_of_one_row_that_would_steer_the_terminal(capsys, tmp_path):
    write_rows(tmp_path / "mine.jsonl", [ROW | {"dilemma": "One\x1b[31m red [bold]row[/bold].", "more": 3}])
    out = run(capsys, "data", "show", tmp_path / "mine.jsonl")
    assert "One[31m red [bold]row[/bold]." in out
    assert "more: 3" in out


def test_quality_prints_and_writes_figures(capsys, tmp_path, tiny_folder):
    path = tmp_path / "deep" / "quality.json"
    out = run(capsys, "data", "quality", "persona-pairs", "--out", path, "--model", tiny_folder, "--threshold", "0.5")
    assert "near-duplicate rate │ 0.0%" in out
    assert "hidden: spread" in out
    found = json.loads(path.read_text())
    assert (found["threshold"], found["seed"], found["model"]) == (0.5, 0, str(tiny_folder))
    (file,) = found["files"]
    (group,) = file["groups"]
    assert (file["kind"], group["group"], group["rows"], len(group["distinct"])) == ("persona-pairs", "all", 25, 3)
    assert 0 < group["hidden"]["pairs"] < 2
    assert group["words"]["pairs_of_one_domain"] is None


def test_imported_rows_can_be_shown(capsys, tmp_path):
    source, out = tmp_path / "mine.jsonl", tmp_path / "questions.jsonl"
    write_rows(source, [{"q": "Why is the well low?"}, {"q": "Who mends the roof?"}])
    words = ["data", "import", "jsonl", "--kind", "open-ended", "--field", "question=q", "--input", source]
    assert f"{out}: 2 open-ended" in run(capsys, *words, "--out", out)
    assert [row["question"] for row in read_kind(str(out), "open-ended")] == [
        "Why is the well low?",
        "Who mends the roof?",
    ]
    assert "2 rows" in run(capsys, "data", "show", out)
    assert f"--out {source}: is the input; give another file" in complain(capsys, *words, "--out", source)


def generate(tmp_path, *words):
    base = [
        "data",
        "generate",
        "--kind",
        "dilemmas",
        "--count",
        "3",
        "--model",
        MODEL,
        "--cache",
        tmp_path / "v.sqlite",
    ]
    return [*base, "--out", tmp_path / "rows.jsonl", "--connections", "2", *words]


def write_reply(call):
    place = call.prompt.split("Subject: ")[1].split("\n")[0]
    words = " ".join(f"{place} {number}" for number in range(20))
    return json.dumps({"dilemma": f"{words}."})


def test_generated_rows_are_written_with_what_they_cost(capsys, tmp_path, monkeypatch):
    prices = tmp_path / "prices.toml"
    prices.write_text(f'[dollars_per_million_tokens]\n"{MODEL}" = {{ input = 0, output = 1000 }}\n')
    words = generate(tmp_path, "--prices", prices, "--domains", "mills,wells,roofs", "--max-spend", "9")
    with serve(write_reply) as server:
        server.point(monkeypatch)
        out = run(capsys, *words)
        again = run(capsys, *words)
    # A reply of 41 words ("{"dilemma":" and 20 pairs) at 0.001 dollars each: 3 * 0.041 = 0.123
    assert "3 replies; $0.1230 spent on this file in all" in out
    assert "row 3/3 $0.1230" in out
    assert f"{tmp_path / 'rows.jsonl'}: 3 of 3 dilemmas" in out
    assert "0 replies; $0.1230 spent on this file in all" in again
    assert len(server.calls) == 3
    rows = read_kind(str(tmp_path / "rows.jsonl"), "dilemmas")
    assert {row["domain"] for row in rows} <= {"mills", "wells", "roofs"}


def test_the_cap_of_a_generation_is_one_line(capsys, tmp_path, monkeypatch):
    prices = tmp_path / "prices.toml"
    prices.write_text(f'[dollars_per_million_tokens]\n"{MODEL}" = {{ input = 0, output = 1000 }}\n')
    words = generate(tmp_path, "--prices", prices, "--max-spend", "0.06", "--max-tokens", "50", "--connections", "1")
    with serve(write_reply) as server:
        server.point(monkeypatch)
        assert main([str(word) for word in words]) == 2
    out, err = capsys.readouterr()
    assert "access.max_spend is 0.06: 0.0410 dollars are spent" in err
    assert err.count("\n") == 1
    assert "1 replies; $0.0410 spent on this file in all" in " ".join(out.split())
    assert len(read_kind(str(tmp_path / "rows.jsonl"), "dilemmas")) == 1


def test_rows_that_never_came_are_named(capsys, tmp_path, monkeypatch):
    def script(call):
        return (
            Act("status", status=400, text="no")
            if "professional" in call.prompt or "at work" in call.prompt
            else (write_reply(call))
        )

    with serve(script) as server:
        server.point(monkeypatch)
        assert main([str(word) for word in generate(tmp_path)]) == 2
    out, err = capsys.readouterr()
    assert "1 of 3 rows got no good reply" in err
    assert "(number 1: http 400: " in err
    assert err.count("\n") == 1
    assert "2 of 3 dilemmas" in " ".join(out.split())


def test_a_local_model_is_asked_too(capsys, tmp_path, tiny_folder):
    out = tmp_path / "rows.jsonl"
    words = ["data", "generate", "--kind", "dilemmas", "--count", "2", "--model", str(tiny_folder), "--out", str(out)]
    assert main([*words, "--max-tokens", "3"]) == 2
    printed, err = capsys.readouterr()
    assert "12 replies; a local model costs nothing" in " ".join(printed.split())  # six attempts for each of two rows
    assert "2 of 2 rows got no good reply" in err
    assert "(number 1: " in err  # cut off, or a word or two: the model is random
    assert not out.exists()
    assert len((tmp_path / "rows.jsonl.replies.jsonl").read_text().splitlines()) == 13


@pytest.mark.slow
def test_the_embedded_model_writes_without_breaking_anything(capsys, tmp_path):
    """A smoke test: the embedded model is too small to write good dilemmas, so rows may be missing, nothing else."""
    out = tmp_path / "rows.jsonl"
    words = ["data", "generate", "--kind", "dilemmas", "--count", "1", "--model", "embedded", "--out", str(out)]
    code = main([*words, "--max-tokens", "60", "--temperature", "0.7"])
    printed, err = capsys.readouterr()
    assert "a local model costs nothing" in printed
    if code == 0:
        assert len(read_kind(str(out), "dilemmas")) == 1
    else:
        assert code == 2
        assert "1 of 1 rows got no good reply from 'embedded'" in err
