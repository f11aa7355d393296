"""Storing tokens adds what was sampled to the rows and changes nothing else."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from small_session import build_config, build_session

from comity.negotiation.protocol import pending, start
from comity.runs import read_negotiations
from comity.training.trainer import train_step
from comity.types import Persona, Scenario


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
            assert len(sampled["new_logprobs"]) == message["tokens"]
        assert (row.pop("completion_sampled", None) is not None) == (row["completion"] is not None)
        assert row == bare


def test_what_is_reread_is_the_policy_after_the_step(tiny_folder, tmp_path):
    session, rows = play_step(tiny_folder, tmp_path / "stored", store_tokens=True)
    gains = []
    for row in rows:
        for message in row["messages"][:1]:
            sampled = message["sampled"]
            # The prompt is what the protocol gave, the model is the one in memory after its update.
            scenario = Scenario(row["scenario"], row["dilemma"], "everyday", tuple(
                Persona("AB"[place], goal) for place, goal in enumerate(row["personas"])), "train")  # fmt: skip
            request = pending(start(scenario, row["sample"]), session.config.negotiation)
            prompt = session.engine.encode_chat(request.messages).tolist()
            ids = torch.tensor([[*prompt, *sampled["ids"]]])
            with torch.no_grad():
                logits_TV = session.model(input_ids=ids).logits[0].float() / request.sampling.temperature
            logprob_TV = logits_TV.log_softmax(-1)
            wanted = [float(logprob_TV[len(prompt) - 1 + place, token]) for place, token in enumerate(sampled["ids"])]
            assert sampled["new_logprobs"] == pytest.approx(wanted, abs=2e-4)
            gains.append(row["advantage"] * (sum(sampled["new_logprobs"]) - sum(sampled["logprobs"])))
    # The step raised what had an advantage and lowered the rest.
    assert sum(gains) > 0
