"""Slots: quotas of tiers, domains and splits, and the same slot whatever the count."""

from collections import Counter

import pytest

from comity.scenarios.generation.plan import PLACES, THEMES, hash_plan, plan_slots
from comity.scenarios.kinds import read_kind


def test_tiers_splits_and_domains_have_their_quotas():
    slots = plan_slots("dilemmas", 300, 0)
    assert [slot.number for slot in slots] == list(range(300))
    assert Counter(slot.fixed["tier"] for slot in slots) == {"professional": 100, "interpersonal": 100, "everyday": 100}
    assert Counter(slot.fixed["split"] for slot in slots) == {"train": 210, "dev": 30, "test": 60}
    assert len({slot.fixed["id"] for slot in slots}) == 300
    shipped = {}
    for row in read_kind("shipped", "dilemmas"):
        shipped.setdefault(row["tier"], set()).add(row["domain"])
    for tier, domains in shipped.items():
        counts = Counter(slot.fixed["domain"] for slot in slots if slot.fixed["tier"] == tier)
        # Each domain comes once before any comes again.
        assert set(counts.values()) <= {100 // len(domains), 100 // len(domains) + 1}
        assert set(counts) <= domains


def test_a_count_that_grows_keeps_the_slots():
    for kind in ("dilemmas", "persona-pairs", "conflict-tasks"):
        assert plan_slots(kind, 40, 3)[:7] == plan_slots(kind, 7, 3)
        assert plan_slots(kind, 7, 3) != plan_slots(kind, 7, 4)


def test_given_domains_take_the_place_of_the_shipped_ones():
    slots = plan_slots("conflict-tasks", 12, 0, ("beekeeping", "chess"))
    assert Counter((slot.fixed["tier"], slot.fixed["domain"]) for slot in slots) == {
        (tier, domain): 2
        for tier in ("professional", "interpersonal", "everyday")
        for domain in ("beekeeping", "chess")
    }
    assert [slot.fixed["id"] for slot in slots[:2]] == ["gen-task-0001", "gen-task-0002"]
    assert all(slot.fixed["domain"] in slot.prompt for slot in slots)


def test_prompts_differ_and_show_nothing_held_out():
    held_out = [row["dilemma"] for row in read_kind("shipped", "dilemmas") if row["split"] != "train"]
    for row in read_kind("shipped", "conflict-tasks"):
        held_out += [row["dilemma"], row["persona_a"], row["persona_b"]]
    for kind in ("dilemmas", "conflict-tasks"):
        prompts = {slot.prompt for slot in plan_slots(kind, 200, 0)}
        assert len(prompts) == 200
        assert not [text for text in held_out if any(text in prompt for prompt in prompts)]


def test_themes_of_persona_pairs_take_turns():
    slots = plan_slots("persona-pairs", len(THEMES), 0)
    assert all(sum(f"They differ about: {theme}" in slot.prompt for slot in slots) == 1 for theme in THEMES)
    assert len(set(PLACES)) == len(PLACES)


@pytest.mark.parametrize("kind", ["dilemmas", "persona-pairs", "conflict-tasks"])
def test_each_kind_has_its_own_template_hash(kind):
    assert len(hash_plan(kind)) == 12
    assert len({hash_plan(k) for k in ("dilemmas", "persona-pairs", "conflict-tasks")}) == 3
