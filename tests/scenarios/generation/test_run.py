"""A generation against a real server: re-asks, duplicates, order, a kill, a cap."""

import json
import os
import random
import signal
import subprocess
import sys
import threading

import pytest

from comity.access import open_access
from comity.config import AccessConfig
from comity.errors import ConfigError, RunError, SpendCapReached
from comity.scenarios.generation.run import MOST_ATTEMPTS, generate_rows, journal_path
from comity.scenarios.generation.settings import GenerateConfig
from comity.scenarios.kinds import check_scenario_row, detect_kind, find_kind, read_kind
from comity.types import Sampling
from loopback import MODEL, Act, serve


def write_text(key, words=30):
    """Return a text of its own for each key: no three words of two such texts stand in the same order."""
    drawn = random.Random(key)
    return " ".join(f"w{drawn.randrange(10**6)}" for _ in range(words)) + "."


def good_reply(call):
    """Answer as a model would that reads the whole prompt."""
    if "persona_a" not in call.prompt:
        return json.dumps({"dilemma": write_text(call.prompt)})
    found = {f"persona_{side}": f"You {write_text(side + call.prompt, 15)}" for side in "ab"}
    if "tension" in call.prompt:
        return json.dumps({"tension": "one / other", **found})
    return json.dumps({"dilemma": write_text(call.prompt), **found})


@pytest.fixture
def generate(tmp_path, monkeypatch):
    """Return a function that generates with a script and gives rows, faults, calls and the path of the file."""

    def run(script, kind="dilemmas", count=6, out="rows.jsonl", connections=4, **changes):
        access = {"cache": "none", "connections": connections, "retries": 0, "backoff_seconds": 0.01}
        access |= changes.pop("access", {})
        config = GenerateConfig(kind, count, MODEL, tmp_path / out, access=AccessConfig(**access), **changes)
        with serve(script) as server:
            server.point(monkeypatch)
            with open_access(MODEL, config.access, run="test") as asked:
                rows, faults = generate_rows(config, asked.ask)
        return rows, faults, server.calls, config.out

    return run


@pytest.mark.parametrize("kind", ["dilemmas", "persona-pairs", "conflict-tasks"])
def test_rows_of_each_kind_are_written_checked_and_detected(generate, kind):
    rows, faults, calls, out = generate(good_reply, kind)
    assert (len(rows), faults, len(calls)) == (6, {}, 6)
    assert detect_kind(out) == find_kind(kind)
    assert read_kind(str(out), kind) == rows
    for row in rows:
        check_scenario_row(find_kind(kind), {k: v for k, v in row.items() if k != "source"}, "here", extra=False)
        assert row["source"] == MODEL
    fields = calls[0].body["response_format"]["json_schema"]["schema"]["properties"]
    assert set(fields) == set(rows[0]) - {"id", "tier", "domain", "split", "source"}
    if kind != "persona-pairs":
        assert [row["tier"] for row in rows] == ["professional", "interpersonal", "everyday"] * 2


def test_a_bad_reply_is_asked_again_once_with_its_error_and_then_anew(generate):
    def script(call):
        if "Subject: diplomacy" not in call.prompt:
            return good_reply(call)
        said.append([message["content"] for message in call.body["messages"]])
        return '{"dilemma": "Too short."}' if len(said) < 4 else good_reply(call)

    said = []
    rows, faults, calls, _ = generate(script)
    assert (len(rows), faults, len(calls)) == (6, {}, 9)
    first, second, third, fourth = said
    assert len(first) == 2
    assert second[:2] == first
    assert second[2] == '{"dilemma": "Too short."}'
    assert "This reply cannot be used: dilemma has 2 words; write 25 to 80" in second[3]
    assert third == first  # fresh
    assert fourth == second


def test_a_slot_that_never_gets_a_good_reply_is_named_and_the_others_are_written(generate):
    def script(call):
        return "I would rather not." if "Subject: diplomacy" in call.prompt else good_reply(call)

    rows, faults, calls, out = generate(script)
    assert len(read_kind(str(out), "dilemmas")) == len(rows) == 5
    assert faults == {0: "dilemma has 4 words; write 25 to 80"}
    assert len(calls) == 5 + MOST_ATTEMPTS
    # Nothing is asked again for what was tried often enough.
    assert generate(script)[1:3] == (faults, [])


@pytest.mark.parametrize("connections", [1, 6])
def test_repeats_of_shipped_and_of_new_rows_are_asked_again(generate, connections):
    shipped = next(row["dilemma"] for row in read_kind("shipped", "dilemmas") if row["id"] == "int-337")

    def script(call):
        if "cannot be used" in call.prompt:
            errors.append(call.prompt.split("cannot be used: ")[1])
            return good_reply(call)
        if "Subject: diplomacy" in call.prompt:
            return json.dumps({"dilemma": shipped})
        return json.dumps({"dilemma": write_text("always the same")})

    errors = []
    rows, faults, calls, _ = generate(script, count=3, connections=connections)
    assert (len(rows), faults, len(calls)) == (3, {}, 5)
    assert rows[1]["dilemma"] == write_text("always the same")  # the first slot that said it keeps it
    assert len({row["dilemma"] for row in rows}) == 3
    one, other = sorted(errors)
    assert one.startswith("dilemma is too near to one that exists (generated gen-int-0001 dilemma")
    assert other.startswith("dilemma is too near to one that exists (shipped dilemmas int-337 dilemma")


def test_the_file_does_not_depend_on_the_order_of_arrival(generate):
    last_is_done = threading.Event()

    def late(call):
        if "Subject: diplomacy" in call.prompt:
            assert last_is_done.wait(30)
        elif len({*done, call.prompt}) == 5:
            last_is_done.set()
        done.append(call.prompt)
        return good_reply(call)

    done = []
    slow = generate(late, out="slow.jsonl", connections=6)
    plain = generate(good_reply, out="plain.jsonl", connections=1)
    assert "Subject: diplomacy" in done[-1]
    assert slow[3].read_bytes() == plain[3].read_bytes()


def test_a_longer_run_extends_a_shorter_one(generate):
    short = generate(good_reply, count=4)[0]
    rows, _, calls, _ = generate(good_reply, count=9)
    assert len(calls) == 5
    assert [row for row in rows if row in short] == short
    assert len(rows) == 9


def test_a_broken_connection_is_no_attempt_and_is_asked_again_by_the_next_run(generate):
    def script(call):
        return Act("status", status=500) if "Subject: diplomacy" in call.prompt else good_reply(call)

    rows, faults, calls, _ = generate(script)
    assert (len(rows), faults) == (5, {0: "http 500"})
    rows, faults, calls, _ = generate(good_reply)
    assert (len(rows), faults, len(calls)) == (6, {}, 1)


def test_a_reply_without_text_is_an_attempt(generate):
    def script(call):
        return Act("text", "{", finish="length") if call.count == 1 else good_reply(call)

    rows, faults, calls, out = generate(script, count=2)
    assert (len(rows), faults, len(calls)) == (2, {}, 4)
    kept = [json.loads(line) for line in journal_path(out).read_text().splitlines()[1:]]
    assert sorted((k["turn"], k["slot"], k["problem"]) for k in kept) == [
        (0, 0, "truncated"), (0, 1, "truncated"), (1, 0, ""), (1, 1, ""),
    ]  # fmt: skip


CHILD = """
import sys
from pathlib import Path
from comity.access import open_access
from comity.config import AccessConfig
from comity.scenarios.generation.run import generate_rows
from comity.scenarios.generation.settings import GenerateConfig

settings = AccessConfig(cache="none", connections=1, retries=0)
config = GenerateConfig("dilemmas", 8, "openai-api/loopback/tiny", Path(sys.argv[1]), access=settings)
with open_access(config.model, settings, run="test") as access:
    generate_rows(config, access.ask)
"""


@pytest.mark.parametrize("torn", [False, True])
def test_a_killed_run_loses_no_reply_and_ends_with_the_same_file(generate, tmp_path, torn):
    sixth_came = threading.Event()

    def script(call):
        calls.append(call.prompt)
        if len(calls) == 6:
            sixth_came.set()
            return Act("hang")
        return good_reply(call)

    calls, out = [], tmp_path / "killed.jsonl"
    with serve(script) as server:
        environment = {**os.environ, **server.environment()}
        child = subprocess.Popen([sys.executable, "-c", CHILD, str(out)], env=environment)
        assert sixth_came.wait(60)
        child.send_signal(signal.SIGKILL)
        assert child.wait(30) == -signal.SIGKILL
    assert len(journal_path(out).read_text().splitlines()) == 6  # the settings and five replies
    if torn:
        with journal_path(out).open("a") as file:
            file.write('{"turn": 0, "slot": 5, "te')
    rows, faults, after, _ = generate(good_reply, count=8, out=out.name)
    assert (len(rows), faults) == (8, {})
    assert len(after) == len({call.prompt for call in after}) == 3
    assert not {call.prompt for call in after} & set(calls[:5])
    unbroken = generate(good_reply, count=8, out="unbroken.jsonl")
    assert out.read_bytes() == unbroken[3].read_bytes()


# 1,000 dollars a million tokens in and 10,000 out. The server counts words, and a reply of one JSON object has
# 31 words at most, which is 0.31 dollars; a prompt of about 170 words is about 0.17.
PRICES = f'[dollars_per_million_tokens]\n"{MODEL}" = {{ input = 1000, output = 10000 }}\n'


def test_the_cap_keeps_what_was_paid_for_and_a_higher_one_goes_on(generate, tmp_path):
    prices = tmp_path / "prices.toml"
    prices.write_text(PRICES)
    access = {"prices": str(prices), "cache": str(tmp_path / "v.sqlite"), "max_spend": 3.0}
    sampling = Sampling(1.0, 0.95, 60)  # at most 60 * 0.01 = 0.6 dollars are set aside for a reply
    with pytest.raises(SpendCapReached, match=r"max_spend is 3.0: .* raise --max-spend and run the same command again"):
        generate(good_reply, count=12, connections=1, access=access, sampling=sampling)
    out = tmp_path / "rows.jsonl"
    some = read_kind(str(out), "dilemmas")
    assert 0 < len(some) < 12
    rows, faults, calls, _ = generate(good_reply, count=12, access=access | {"max_spend": 50.0}, sampling=sampling)
    assert (len(rows), faults, len(calls)) == (12, {}, 12 - len(some))
    assert rows[: len(some)] == some


def test_a_file_of_something_else_is_never_overwritten(generate, tmp_path):
    (tmp_path / "rows.jsonl").write_text("mine\n")
    with pytest.raises(ConfigError, match=r"--out .*rows.jsonl: exists and has no rows.jsonl.replies.jsonl; give an"):
        generate(good_reply)
    assert (tmp_path / "rows.jsonl").read_text() == "mine\n"


@pytest.mark.parametrize(
    "changes", [{"seed": 1}, {"kind": "conflict-tasks"}, {"domains": ("chess",)}, {"threshold": 1}]
)
def test_other_settings_need_another_file(generate, changes):
    out = generate(good_reply, count=2)[3]
    before = out.read_bytes(), journal_path(out).read_bytes()
    (name,) = changes
    with pytest.raises(RunError, match=f"was begun with {name} .*, now it is .*or another --out"):
        generate(good_reply, **{"count": 2, **changes})
    assert (out.read_bytes(), journal_path(out).read_bytes()) == before


@pytest.mark.parametrize("text", ["[]\n", "not json\n", '{"kind": "dilemmas"}\n{"turn": 0}\n', "\xff\n"])
def test_a_damaged_journal_is_named(generate, tmp_path, text):
    path = journal_path(tmp_path / "rows.jsonl")
    path.write_text(text, encoding="latin-1")
    with pytest.raises(RunError, match=r"is no file of replies|was begun with"):
        generate(good_reply)
    assert path.read_text(encoding="latin-1") == text


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"kind": "poems"}, "--kind is 'poems': choose among dilemmas, persona-pairs, conflict-tasks"),
        ({"count": 0}, "--count is 0: choose 1 or more"),
        ({"seed": -1}, "--seed is -1: choose 0 or more"),
        ({"threshold": 0}, "--threshold is 0: choose a number above 0 and at most 1"),
        ({"sampling": Sampling(-1.0, 1.0, 5)}, "--temperature is -1.0"),
        ({"sampling": Sampling(1.0, 1.0, 0)}, "--max-tokens is 0: choose 1 or more"),
        ({"kind": "persona-pairs", "domains": ("x",)}, "--domains is x: persona pairs have no domain"),
    ],
)
def test_settings_out_of_range_are_named(tmp_path, changes, message):
    with pytest.raises(ConfigError, match=message):
        GenerateConfig(**{"kind": "dilemmas", "count": 1, "model": "m", "out": tmp_path / "x"} | changes)
