"""Playing without rounds gives the dialogues of playing in rounds, and nobody waits for a neighbour."""

import asyncio
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_lockstep import decide, reply, scenario

from comity.config import NegotiationConfig
from comity.engines.scripted import scripted_judge, scripted_responder
from comity.errors import ModelError
from comity.negotiation.lockstep import play
from comity.negotiation.protocol import start
from comity.negotiation.stream import Gatherer, play_streaming, stream
from comity.types import Completion


def responder_in_any_order(seed):
    """Return a responder whose replies come after a number of turns of the event loop that their seed decides."""
    answer = scripted_responder(reply)

    async def respond(request):
        for _ in range((request.seed ^ seed) % 7):
            await asyncio.sleep(0)
        return answer([request])[0]

    return respond


@given(
    st.lists(st.tuples(st.integers(0, 3), st.booleans(), st.integers(0, 2)), max_size=6),
    st.integers(1, 4),
    st.sampled_from(["rounds", "messages"]),
    st.integers(0, 1000),
    st.booleans(),
)
def test_streaming_equals_lockstep_whatever_comes_first(drawn, rounds, limit_unit, seed, always_complete):
    rules = NegotiationConfig(rounds=rounds, limit_unit=limit_unit)
    states = [start(scenario(number, solo), sample) for number, solo, sample in drawn]
    in_rounds = play(states, rules, scripted_responder(reply), scripted_judge(decide), seed, always_complete)

    async def judge(ending):
        return scripted_judge(decide)([ending])[0]

    streamed = stream(states, rules, responder_in_any_order(seed), judge, seed, always_complete)
    assert repr(streamed) == repr(in_rounds)


def test_a_verdict_is_asked_for_while_another_dialogue_is_still_being_written():
    """The slow dialogue's first message comes only after the fast one was judged: in rounds this would never end."""
    rules = NegotiationConfig(rounds=1)
    states = [start(scenario(0)), start(scenario(1))]

    async def main():
        judged = asyncio.Event()

        async def respond(request):
            if "Dilemma 1." in request.messages[-1]["content"]:
                await judged.wait()
            return Completion("we could")

        async def judge(ending):
            judged.set()
            return scripted_judge([True])([ending])[0]

        return await asyncio.wait_for(play_streaming(states, rules, respond, judge), timeout=60)

    assert [state.ending for state in asyncio.run(main())] == ["agreed", "agreed"]


def test_the_first_error_ends_all_dialogues():
    cancelled = []

    async def respond(request):
        if "Dilemma 1." in request.messages[-1]["content"]:
            raise ModelError("no server is left")
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.append(request.target)
            raise
        raise AssertionError

    with pytest.raises(ModelError, match="no server is left"):
        stream([start(scenario(0)), start(scenario(1))], NegotiationConfig(), respond, respond)
    assert cancelled == ["seat_0"]


def test_progress_is_told_once_for_all_that_moved_together():
    seen = []
    rules = NegotiationConfig(rounds=1)

    async def respond(_request):
        return Completion("we could")

    async def judge(ending):
        return scripted_judge([False])([ending])[0]

    states = [start(scenario(number)) for number in range(3)]
    stream(states, rules, respond, judge, on_progress=lambda now: seen.append([len(s.turns) for s in now]))
    assert seen == [[2, 2, 2]]


def test_what_is_asked_during_a_call_goes_together_into_the_next():
    batches, begun, go_on = [], threading.Event(), threading.Event()

    def double(items):
        batches.append(list(items))
        begun.set()
        go_on.wait(60)
        return [item * 2 for item in items]

    async def main():
        with Gatherer(double) as ask:
            first = [asyncio.create_task(ask(1)), asyncio.create_task(ask(2))]
            await asyncio.to_thread(begun.wait, 60)
            others = [asyncio.create_task(ask(item)) for item in (3, 4, 5)]
            await asyncio.sleep(0)
            go_on.set()
            return await asyncio.gather(*first, *others)

    assert asyncio.run(main()) == [2, 4, 6, 8, 10]
    assert batches == [[1, 2], [3, 4, 5]]


def test_at_most_so_many_calls_run_at_once():
    both = threading.Barrier(2, timeout=60)

    def wait_for_the_other(items):
        both.wait()
        return items

    async def main():
        with Gatherer(wait_for_the_other, calls_at_once=2) as ask:
            first = asyncio.create_task(ask("a"))
            while not both.n_waiting:  # the first call is under way
                await asyncio.sleep(0)
            return await asyncio.gather(first, ask("b"))

    assert asyncio.run(main()) == ["a", "b"]


def test_an_error_of_a_call_reaches_all_who_asked_and_later_calls_go_on():
    def refuse_odd(items):
        if any(item % 2 for item in items):
            raise ModelError("odd")
        return items

    async def main():
        with Gatherer(refuse_odd) as ask:
            failed = await asyncio.gather(ask(1), ask(2), return_exceptions=True)
            return [str(error) for error in failed], await ask(4)

    assert asyncio.run(main()) == (["odd", "odd"], 4)


def test_a_call_that_drops_an_answer_is_refused():
    async def main():
        with Gatherer(lambda items: items[1:]) as ask:
            return await ask(1)

    with pytest.raises(ValueError, match="shorter"):
        asyncio.run(main())


def test_what_is_asked_in_the_moment_in_which_a_call_ends_is_answered():
    async def main():
        ended = asyncio.get_running_loop().create_future()

        def answer(items):
            yield from items
            if not ended.done():  # the loop's thread has taken the last answer, and the call is about to end
                ended.set_result(None)

        async def ask_late():
            await ended
            return await ask(2)

        with Gatherer(answer) as ask:
            return await asyncio.wait_for(asyncio.gather(ask(1), ask_late()), 30)

    assert asyncio.run(main()) == [1, 2]
