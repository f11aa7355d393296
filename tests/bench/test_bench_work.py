"""The work: as many messages and tokens as asked for, none of which ends early, and the same every time."""

import dataclasses

import pytest

from comity.bench.ours import load_engine, open_rollout, write_rows
from comity.bench.settings import BenchSettings, read_settings
from comity.bench.work import draw_dialogues, make_turn_samples, negotiation_rules
from comity.errors import ConfigError
from comity.negotiation.protocol import seat_messages
from tiny import save_tiny

STOP = 2
"""The stop token of the tiny model."""


@pytest.fixture(scope="module")
def settings(tmp_path_factory):
    folder = save_tiny(tmp_path_factory.mktemp("bench") / "model")
    return BenchSettings(
        "rollout", dialogues=4, group_size=2, messages=3, tokens=40, model=str(folder), dtype="float32"
    )  # fmt: skip


@pytest.fixture(scope="module")
def engine(settings):
    return load_engine(settings)


def test_no_text_ends_before_its_last_token(settings, engine):
    outcome = open_rollout(settings, engine)(0, [])
    # 4 dialogues x 3 messages x 40 tokens
    assert outcome.tokens == 480
    assert [len(row.tokens) for row in outcome.rows] == [40] * 12
    assert [row.message for row in outcome.rows] == [0] * 4 + [1] * 4 + [2] * 4
    assert [(row.scenario, row.sample) for row in outcome.rows[:4]] == [(0, 0), (0, 1), (1, 0), (1, 1)]
    # Among 480 draws of 300 tokens the stop token comes up, and the text goes on.
    assert any(STOP in row.tokens[:-1] for row in outcome.rows)
    assert outcome.parts.keys() == {"rollout"}


def test_a_repeat_can_be_repeated_and_the_next_one_draws_anew(settings, engine):
    run = open_rollout(settings, engine)
    first, again, other = run(0, []), run(0, []), run(1, [])
    assert first.rows == again.rows
    assert [row.prompt for row in first.rows[:4]] == [row.prompt for row in other.rows[:4]]
    assert all(a.tokens != b.tokens for a, b in zip(first.rows, other.rows, strict=True))


def test_written_dialogues_have_as_many_tokens(settings, engine):
    rows = write_rows(settings, engine)
    assert [len(row.tokens) for row in rows] == [40] * 12
    assert len({tuple(row.tokens) for row in rows}) == 12
    # Later prompts quote what was said.
    assert len(rows[-1].prompt) > len(rows[0].prompt)


def test_every_message_is_trained_on(settings, engine):
    rows = write_rows(settings, engine)
    samples = make_turn_samples(settings, rows)
    # Rewards 0 and 1 in a group of two: their mean is 0.5.
    assert [sample.advantage for sample in samples[:4]] == [-0.5, 0.5, -0.5, 0.5]
    assert [int(sample.loss_mask.sum()) for sample in samples] == [40] * 12
    assert samples[0].token_ids.tolist() == rows[0].prompt + rows[0].tokens


def test_prompts_are_made_as_long_as_wanted(settings, engine):
    # The tiny tokenizer takes about 250 tokens for the instructions, and three times as many as words.
    for wanted in (400, 1500):
        asked = dataclasses.replace(settings, prompt_tokens=wanted)
        for state in draw_dialogues(asked, engine.encode_chat):
            length = len(engine.encode_chat(seat_messages(state, 0, negotiation_rules(asked))))
            assert wanted - 30 < length <= wanted
    with pytest.raises(ConfigError, match="the instructions alone take more"):
        draw_dialogues(dataclasses.replace(settings, prompt_tokens=20), engine.encode_chat)


def test_settings_pass_through_json(settings):
    assert read_settings(settings.to_plain()) == settings
