"""Real servers on loopback that become slow, die, forget and lie: they are noticed, skipped and taken back."""

import asyncio
from contextlib import ExitStack

import numpy as np
import pytest
from peft import LoraConfig, get_peft_model

from comity.config import RolloutConfig
from comity.engines.fleet import Fleet
from comity.engines.local import LocalEngine
from comity.engines.models import load_model, load_tokenizer
from comity.engines.versions import PolicyVersion, leave_adapter
from comity.errors import ConfigError, ServersLost
from comity.types import Request, Sampling
from serving import BASE, serve_tiny

DRAWN = Sampling(0.7, 0.95, 6)
NO_ADAPTER = PolicyVersion(0)


def requests(count=8):
    chats = [({"role": "user", "content": f"Field {number} is dry."},) for number in range(count)]
    return [Request("seat_0", chat, DRAWN, seed=100 + number) for number, chat in enumerate(chats)]


def build_policy(folder, seed=0):
    """Return the tiny model with a random adapter that changes what it says."""
    import torch

    model = load_model(str(folder), "float32", "cpu")
    settings = LoraConfig(
        r=2, lora_alpha=4, target_modules="all-linear", task_type="CAUSAL_LM", init_lora_weights=False
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return get_peft_model(model, settings, autocast_adapter_dtype=False).eval()


@pytest.fixture(scope="module")
def engine(tiny_folder):
    return LocalEngine(build_policy(tiny_folder), load_tokenizer(str(tiny_folder)), policy_version=3)


@pytest.fixture
def version(engine, tmp_path):
    return leave_adapter(engine.model, tmp_path / "adapters", 3)


@pytest.fixture(scope="module")
def expected(engine):
    """Return what the local engine says to each request alone."""
    return [engine([request])[0] for request in requests()]


def build_fleet(engine, servers, ready=None, samplings=(DRAWN,), **settings):
    settings = {"timeout_seconds": 60, "token_seconds": 60, "probe_seconds": 0.01, "patience_seconds": 60} | settings
    config = RolloutConfig(servers=tuple(server.url for server in servers), **settings)
    return Fleet(config, engine, samplings, ready or len(servers))


def ask(fleet, version, count=8, meanwhile=None):
    """Return the replies, and what the fleet tells about its servers before it closes."""

    async def main():
        async with fleet.open([version]) as opened:
            asked = asyncio.gather(*(opened.answer(request, version) for request in requests(count)))
            if meanwhile is not None:
                await meanwhile(opened)
            return await asked, opened

    return asyncio.run(asyncio.wait_for(main(), 120))


def assert_same(replies, expected):
    for reply, wanted in zip(replies, expected, strict=True):
        assert (reply.text, reply.finish, reply.policy_version) == (wanted.text, wanted.finish, wanted.policy_version)
        assert reply.prompt_ids.tolist() == wanted.prompt_ids.tolist()
        assert reply.token_ids.tolist() == wanted.token_ids.tolist()
        np.testing.assert_array_equal(reply.logprobs, wanted.logprobs)


async def become_ready(opened, count):
    """Wait until so many servers are ready."""
    while sum(standing.is_ready for standing in opened.standings) < count:
        await asyncio.sleep(0.01)


def test_servers_say_what_the_local_engine_says(tiny_folder, engine, version, expected):
    with serve_tiny(tiny_folder) as one, serve_tiny(tiny_folder) as other:
        fleet = build_fleet(engine, [one, other])
        replies, opened = ask(fleet, version)
        assert_same(replies, expected)
        assert one.loads == other.loads == [version.name]
        assert {body["model"] for body in one.completions + other.completions} == {version.name}
        assert len(one.completions) + len(other.completions) == 8
        assert (opened.tally.skipped, opened.tally.asked_again) == (0, 0)
        # Opened again, and the policy is not loaded a second time.
        assert_same(ask(fleet, version)[0], expected)
        assert one.loads == other.loads == [version.name]


def test_the_base_model_is_asked_by_its_name(tiny_folder, engine):
    from comity.engines.merging import adapters_off

    with serve_tiny(tiny_folder) as server:
        replies, _ = ask(build_fleet(engine, [server]), NO_ADAPTER, 2)
        assert {body["model"] for body in server.completions} == {BASE}
    with adapters_off(engine.model):
        wanted = [engine([request])[0].text for request in requests(2)]
    assert [reply.text for reply in replies] == wanted
    assert [reply.policy_version for reply in replies] == [0, 0]


def test_a_new_policy_replaces_the_old_one(tiny_folder, engine, version, tmp_path):
    later = leave_adapter(build_policy(tiny_folder, seed=1), tmp_path / "adapters", 4)
    assert later.name != version.name
    with serve_tiny(tiny_folder) as server:
        server.adapters.append("of-another-run")
        fleet = build_fleet(engine, [server])
        ask(fleet, version, 1)
        replies, _ = ask(fleet, later, 1)
        assert server.adapters == ["of-another-run", later.name]
    assert replies[0].policy_version == 4


def test_servers_have_each_policy_before_anything_is_asked(tiny_folder, engine, version, tmp_path):
    later = leave_adapter(build_policy(tiny_folder, seed=1), tmp_path / "adapters", 4)
    with serve_tiny(tiny_folder) as one, serve_tiny(tiny_folder) as other:
        fleet = build_fleet(engine, [one, other])

        async def look(version):
            async with fleet.open([version]) as opened:
                return one.adapters[:], other.adapters[:], opened.figures()

        for item in (version, later, version):
            *loaded, figures = asyncio.run(asyncio.wait_for(look(item), 120))
            assert loaded == [[item.name], [item.name]]
            assert (figures["servers/ready"], figures["servers/readmitted"]) == (2, 0)


@pytest.mark.parametrize("fault", ["status", "broken", "other model", "drop"])
def test_a_failing_server_is_skipped_and_taken_back_once_it_is_mended(tiny_folder, engine, version, expected, fault):
    with serve_tiny(tiny_folder) as bad, serve_tiny(tiny_folder) as good:
        fleet = build_fleet(engine, [bad, good], connections=4)  # so that both are asked
        # The first request that reaches it breaks it.
        bad.on_completion = lambda server: server.fail(fault)

        async def mend(opened):
            while not opened.tally.skipped:
                await asyncio.sleep(0.01)
            bad.on_completion = None
            bad.mend()
            await become_ready(opened, 2)

        replies, opened = ask(fleet, version, meanwhile=mend)
        assert_same(replies, expected)
        assert opened.tally.skipped >= 1
        assert opened.tally.readmitted >= 1
        assert opened.tally.asked_again >= 1


def test_a_slow_server_is_skipped_in_time_and_taken_back(tiny_folder, engine, version, expected):
    with serve_tiny(tiny_folder) as slow, serve_tiny(tiny_folder) as good:
        fleet = build_fleet(engine, [slow, good], timeout_seconds=3, token_seconds=3, connections=4)
        slow.on_completion = lambda server: server.fail("hang")

        async def mend(opened):
            while not opened.tally.skipped:
                await asyncio.sleep(0.01)
            told = "slow: /v1/completions took longer than rollouts.timeout_seconds (3 s)"
            assert told in [standing.trouble for standing in opened.standings]
            slow.on_completion = None
            slow.mend()
            await become_ready(opened, 2)

        replies, opened = ask(fleet, version, meanwhile=mend)
        assert_same(replies, expected)
        assert opened.tally.readmitted >= 1


def test_a_server_that_forgot_the_policy_is_noticed_and_given_it_again(tiny_folder, engine, version, expected):
    with serve_tiny(tiny_folder) as server:
        fleet = build_fleet(engine, [server], connections=1)
        server.on_completion = lambda it: "amnesia" if len(it.completions) == 3 else None
        replies, opened = ask(fleet, version)
        assert_same(replies, expected)
        assert server.loads == [version.name, version.name]
        assert (opened.tally.skipped, opened.tally.readmitted, opened.tally.asked_again) == (1, 1, 1)


def test_a_server_that_dies_and_comes_back_at_its_address_is_taken_back(tiny_folder, engine, version, expected):
    with ExitStack() as second, ExitStack() as first:
        server = first.enter_context(serve_tiny(tiny_folder))
        fleet = build_fleet(engine, [server])
        server.on_completion = lambda it: "hang"  # nothing is answered before it dies

        async def die_and_come_back(opened):
            while not server.completions:
                await asyncio.sleep(0.01)
            await asyncio.to_thread(first.close)
            while not opened.standings[0].trouble.startswith("dead"):
                await asyncio.sleep(0.01)
            port = int(server.url.rsplit(":", 1)[1])
            return second.enter_context(serve_tiny(tiny_folder, port=port))

        replies, opened = ask(fleet, version, meanwhile=die_and_come_back)
        assert_same(replies, expected)
        assert opened.tally.readmitted == 1


def test_without_any_server_the_step_waits_and_then_says_why(tiny_folder, engine, version):
    with serve_tiny(tiny_folder) as server:
        server.fail("drop")
        fleet = build_fleet(engine, [server], patience_seconds=0.05)
        with pytest.raises(ServersLost, match=r"none has been ready for 0.05 s \(http://127.0.0.1:\d+ dead: /health"):
            ask(fleet, version)


def test_losing_the_last_server_in_the_middle_ends_the_step(tiny_folder, engine, version):
    with serve_tiny(tiny_folder) as server:
        fleet = build_fleet(engine, [server], patience_seconds=0.05, attempts=9)
        server.on_completion = lambda it: it.fail("drop")
        with pytest.raises(ServersLost, match="start them again, and the run with --resume"):
            ask(fleet, version)


def test_a_request_fails_after_its_attempts_and_others_go_on(tiny_folder, engine, version, expected):
    with serve_tiny(tiny_folder) as server:
        fleet = build_fleet(engine, [server], attempts=2)
        poison = requests()[1].seed
        server.on_completion = lambda it: "status" if it.completions[-1]["seed"] == poison else None
        replies, opened = ask(fleet, version, 3)
        assert [reply.finish == "error" for reply in replies] == [False, True, False]
        assert_same([replies[0], replies[2]], [expected[0], expected[2]])
        assert opened.tally.skipped == 2


def test_what_every_server_would_refuse_fails_at_once(tiny_folder, engine, version):
    with serve_tiny(tiny_folder) as server:
        server.on_completion = lambda it: "refuse"
        replies, opened = ask(build_fleet(engine, [server]), version, 1)
        assert replies[0].finish == "error"
        assert (opened.tally.refused, opened.tally.skipped, len(server.completions)) == (1, 0, 1)


def test_an_unfit_server_is_skipped_while_another_will_do(tiny_folder, engine, version, expected):
    with serve_tiny(tiny_folder, kind="raw") as unfit, serve_tiny(tiny_folder) as good:

        async def see_it(opened):
            while not opened.standings[0].trouble.startswith("unfit"):
                await asyncio.sleep(0.01)

        replies, _ = ask(build_fleet(engine, [unfit, good], ready=1), version, meanwhile=see_it)
        assert_same(replies, expected)
        assert not unfit.completions


@pytest.mark.parametrize(("kind", "is_fit"), [("whole", True), ("raw", False), ("nucleus", False), ("logits", False)])
def test_servers_whose_logprobs_the_trainer_cannot_use_are_refused(tiny_folder, engine, version, kind, is_fit):
    with serve_tiny(tiny_folder, kind=kind) as server:
        fleet = build_fleet(engine, [server])
        if is_fit:
            assert ask(fleet, version, 1)[0][0].finish != "error"
        else:
            with pytest.raises(ConfigError, match=rf"another kind \({kind}\).*--logprobs-mode processed_logits"):
                ask(fleet, version, 1)


def test_the_same_log_probabilities_will_do_where_sampling_cuts_nothing(tiny_folder, engine, version):
    with serve_tiny(tiny_folder, kind="raw") as raw, serve_tiny(tiny_folder, kind="nucleus") as nucleus:
        assert ask(build_fleet(engine, [raw], samplings=[Sampling(1.0, 0.95)]), version, 1)[0][0].finish != "error"
        assert ask(build_fleet(engine, [nucleus], samplings=[Sampling(0.7, 1.0)]), version, 1)[0][0].finish != "error"


def test_at_most_so_many_requests_are_under_way_at_a_server(tiny_folder, engine, version, expected):
    with serve_tiny(tiny_folder) as server:
        replies, _ = ask(build_fleet(engine, [server], connections=2), version)
        assert_same(replies, expected)
        assert server.most_at_once <= 2


def test_the_name_of_a_policy_follows_from_its_bytes(tiny_folder, engine, tmp_path):
    one = leave_adapter(engine.model, tmp_path / "a", 1)
    again = leave_adapter(engine.model, tmp_path / "b", 7)
    other = leave_adapter(build_policy(tiny_folder, seed=1), tmp_path / "a", 1)
    assert one.name == again.name != other.name
    assert leave_adapter(engine.model, tmp_path / "a", 2).folder == one.folder
    assert sorted(path.name for path in (tmp_path / "a").iterdir()) == sorted([one.name, other.name])
    assert {path.name for path in one.folder.iterdir()} == {"adapter_config.json", "adapter_model.safetensors"}
