"""The negotiation as a pure state machine: `pending` says what is awaited, `advance` takes it.

No input or output, clock, randomness or tensor library: the same state and replies give the same dialogue everywhere.
Source: paper, section 3 (one rollout).
"""

import dataclasses
import hashlib

from comity.config import NegotiationConfig
from comity.prompts import fill, neutralise
from comity.types import (
    Check,
    Completion,
    Ending,
    Message,
    Negotiation,
    Request,
    RoundEnding,
    Scenario,
    Target,
    Turn,
)


def start(scenario: Scenario, sample: int = 0) -> Negotiation:
    """Return the empty dialogue of a scenario; one persona or none makes it a solo answer."""
    return Negotiation(scenario=scenario, sample=sample)


def pending(
    negotiation: Negotiation, rules: NegotiationConfig, seed: int = 0, always_complete: bool = False
) -> Request | RoundEnding | None:
    """Return what the dialogue awaits: a text (Request), the agreement judge's word (RoundEnding), or None when ended.

    `always_complete` asks for a joint answer without agreement too, as evaluation does.
    """
    if negotiation.ending is not None:
        wanted = negotiation.ending == "agreed" or (always_complete and negotiation.ending == "no_agreement")
        if negotiation.completion is None and wanted:
            return _request(negotiation, "summary", _summary_messages(negotiation), rules, seed)
        return None
    if is_solo(negotiation.scenario):
        return _request(negotiation, "seat_0", _solo_messages(negotiation.scenario), rules, seed)
    if _check_is_due(negotiation, rules):
        return latest_round(negotiation)
    seat = next_seat(negotiation, rules)
    target: Target = "seat_0" if seat == 0 else "seat_1"
    return _request(negotiation, target, seat_messages(negotiation, seat, rules), rules, seed)


def advance(negotiation: Negotiation, reply: Completion | Check, rules: NegotiationConfig) -> Negotiation:
    """Return the dialogue after the awaited reply; raise ValueError for a reply that is not awaited."""
    if isinstance(reply, Check):
        return _advance_check(negotiation, reply, rules)
    if negotiation.completion is not None or negotiation.ending in ("answered", "failed"):
        raise ValueError("the negotiation has ended: no text is awaited")
    if _check_is_due(negotiation, rules):
        raise ValueError("the agreement judge's word is awaited, not a message")
    if reply.finish == "error":
        # A text that never came is the fault of the engine, not of the policy: the dialogue is unscored.
        return dataclasses.replace(negotiation, ending="failed")
    if negotiation.ending is not None:
        return dataclasses.replace(negotiation, completion=reply)
    if is_solo(negotiation.scenario):
        return dataclasses.replace(negotiation, turns=(Turn(0, reply),), completion=reply, ending="answered")
    turn = Turn(next_seat(negotiation, rules), reply)
    return dataclasses.replace(negotiation, turns=(*negotiation.turns, turn))


def is_solo(scenario: Scenario) -> bool:
    """Tell whether one seat answers alone."""
    return len(scenario.personas) < 2


def next_seat(negotiation: Negotiation, rules: NegotiationConfig) -> int:
    """Return the seat that speaks next; seats take turns from the opener."""
    return (rules.opener + len(negotiation.turns)) % 2


def rounds_played(negotiation: Negotiation) -> int:
    """Return how many rounds (one message of each seat) were begun."""
    return (len(negotiation.turns) + 1) // 2


def seat_messages(negotiation: Negotiation, seat: int, rules: NegotiationConfig) -> tuple[Message, ...]:
    """Return the chat that one seat sees: its persona, the dilemma and the window of latest turns."""
    scenario = negotiation.scenario
    size = rules.window * (2 if rules.window_unit == "rounds" else 1)
    visible = negotiation.turns[-size:] if size else negotiation.turns
    system = fill("negotiator", objective=scenario.personas[seat].objective)
    if not visible:
        opening = fill("opening", dilemma=scenario.dilemma)
        return ({"role": "system", "content": system}, {"role": "user", "content": opening})
    first, rest = visible[0], visible[1:]
    if first.seat == seat:
        head = fill("dilemma", dilemma=scenario.dilemma)
        rest = visible
    else:
        head = fill("reply", dilemma=scenario.dilemma, message=first.completion.text)
    messages = [{"role": "system", "content": system}, {"role": "user", "content": head}]
    for turn in rest:
        role = "assistant" if turn.seat == seat else "user"
        messages.append({"role": role, "content": neutralise(turn.completion.text)})
    return tuple(messages)


def _advance_check(negotiation: Negotiation, check: Check, rules: NegotiationConfig) -> Negotiation:
    if negotiation.ending is not None or not _check_is_due(negotiation, rules):
        raise ValueError("no agreement check is awaited")
    checks = (*negotiation.checks, dataclasses.replace(check, round=rounds_played(negotiation)))
    ending: Ending | None = None
    if check.agreed:
        ending = "agreed"
    elif _limit_is_reached(negotiation, rules):
        ending = "no_agreement"
    return dataclasses.replace(negotiation, checks=checks, ending=ending)


def _limit_is_reached(negotiation: Negotiation, rules: NegotiationConfig) -> bool:
    return len(negotiation.turns) >= rules.rounds * (2 if rules.limit_unit == "rounds" else 1)


def _check_is_due(negotiation: Negotiation, rules: NegotiationConfig) -> bool:
    played = len(negotiation.turns)
    if not played or len(negotiation.checks) >= rounds_played(negotiation):
        return False
    return played % 2 == 0 or _limit_is_reached(negotiation, rules)


def latest_round(negotiation: Negotiation) -> RoundEnding:
    """Return what the agreement judge reads after the latest round."""
    latest = {turn.seat: turn.completion.text for turn in negotiation.turns}
    first, second = negotiation.scenario.personas[:2]
    return RoundEnding(
        dilemma=negotiation.scenario.dilemma,
        persona_a=first.objective,
        persona_b=second.objective,
        message_a=latest.get(0, ""),
        message_b=latest.get(1, ""),
    )


def _summary_messages(negotiation: Negotiation) -> tuple[Message, ...]:
    first, second = negotiation.scenario.personas[:2]
    lines = [f"{'AB'[turn.seat]}: {turn.completion.text}" for turn in negotiation.turns]
    text = fill(
        "summary",
        dilemma=negotiation.scenario.dilemma,
        persona_a=first.objective,
        persona_b=second.objective,
        dialogue=lines,
    )
    return ({"role": "system", "content": fill("summary_system")}, {"role": "user", "content": text})


def _solo_messages(scenario: Scenario) -> tuple[Message, ...]:
    return (
        {"role": "system", "content": fill("solo")},
        {"role": "user", "content": fill("dilemma", dilemma=scenario.dilemma)},
    )


def _request(
    negotiation: Negotiation, target: Target, messages: tuple[Message, ...], rules: NegotiationConfig, seed: int
) -> Request:
    final = target == "summary" or is_solo(negotiation.scenario)
    sampling = rules.completion if final else rules.dialogue
    return Request(target, messages, sampling, request_seed(seed, negotiation, target))


def request_seed(seed: int, negotiation: Negotiation, target: Target) -> int:
    """Derive the seed (63 bits) of one request from the run's seed, the scenario, the sample and the place."""
    place = f"{seed}|{negotiation.scenario.id}|{negotiation.sample}|{len(negotiation.turns)}|{target}"
    return int.from_bytes(hashlib.sha256(place.encode()).digest()[:8], "big") >> 1
