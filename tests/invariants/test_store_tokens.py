"""Storing tokens adds what was sampled to the rows and changes nothing else."""

from dataclasses import replace

import numpy as np
from small_session import build_config, build_session

from comity.runs import read_negotiations
from comity.training.trainer import train_step


def play_step(folder, run, store_tokens):
    config = replace(build_config(folder, run, steps=1), store_tokens=store_tokens)
    session = build_session(config)
    train_step(session, 1)
    return session, read_negotiations(run / "negotiations" / "step-000001.jsonl")


def test_stored_tokens_are_what_was_sampled_and_change_nothing_else(tiny_folder, tmp_path):
    _, plain = play_step(tiny_folder, tmp_path / "plain", store_tokens=False)
    session, rows = play_step(tiny_folder, tmp_path / "stored", store_tokens=True)
    stops = session.engine.stop_ids
    for row, bare in zip(rows, plain, strict=True):
        for message in row["messages"]:
            sampled = message.pop("sampled")
            assert len(sampled["ids"]) == len(sampled["texts"]) == len(sampled["logprobs"]) == message["tokens"]
            kept = sampled["ids"][:-1] if sampled["ids"][-1] in stops else sampled["ids"]
            assert session.engine.tokenizer.decode(kept, skip_special_tokens=True).strip() == message["text"]
            assert np.all(np.array(sampled["logprobs"]) <= 0)
        assert (row.pop("completion_sampled", None) is not None) == (row["completion"] is not None)
        assert row == bare
