"""CaSiNo (Chawla et al. 2021) as conflict tasks: two campers with their own words about what they need, and the deal.

Each dialogue becomes one row with both people's priorities as personas. What the people did stays beside it, so that a
deal between models can be scored exactly and compared with theirs: `points_a`, `points_b` give the worth of one package
of each issue, `human` the messages, the deal, the points and the satisfaction.
"""

import json
from pathlib import Path
from typing import Any

from comity.errors import DataError
from comity.scenarios.rows import Row

DILEMMA = (
    "Two campers who will stay on neighbouring sites must divide the last three packages each of food, water and "
    "firewood between them. All nine packages are given out, and a package cannot be split."
)
POINTS = {"High": 5, "Medium": 4, "Low": 3}
"""Worth of one package by its priority (Chawla et al. 2021, section 3)."""
ISSUES = ("Food", "Water", "Firewood")
_BUTTONS = frozenset({"Submit-Deal", "Accept-Deal", "Reject-Deal", "Walk-Away"})


def import_casino(path: Path) -> list[Row]:
    """Return one conflict-task row a dialogue of a CaSiNo JSON file; raise DataError naming the dialogue."""
    try:
        dialogues = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"--input {path}: is no CaSiNo file ({error}); give casino_train.json or the like") from error
    if not isinstance(dialogues, list) or not dialogues:
        raise DataError(f"--input {path}: is no CaSiNo file (no list of dialogues); give casino_train.json or the like")
    rows = []
    for number, dialogue in enumerate(dialogues):
        try:
            rows.append(_convert(dialogue))
        except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
            what = f"{type(error).__name__}: {error}"
            raise DataError(
                f"--input {path}, dialogue number {number}: does not have CaSiNo's form ({what})"
            ) from error
    return rows


def _convert(dialogue: dict[str, Any]) -> Row:
    people = dialogue["participant_info"]
    first, second = sorted(people)
    row: Row = {
        "id": f"casino-{int(dialogue['dialogue_id']):04d}",
        "tier": "everyday",
        "domain": "camping supplies",
        "dilemma": DILEMMA,
        "persona_a": _describe_needs(people[first]),
        "persona_b": _describe_needs(people[second]),
        "points_a": _issue_points(people[first]),
        "points_b": _issue_points(people[second]),
    }
    log = dialogue["chat_logs"]
    messages = [
        {"seat": int(entry["id"] == second), "text": entry["text"]} for entry in log if entry["text"] not in _BUTTONS
    ]
    row["human"] = {"agreed": log[-1]["text"] == "Accept-Deal", "messages": messages, "deal": _find_deal(log, first)}
    for name, who in (("a", first), ("b", second)):
        outcomes = people[who]["outcomes"]
        row["human"][f"points_{name}"] = int(outcomes["points_scored"])
        row["human"][f"satisfaction_{name}"] = str(outcomes["satisfaction"])
    return row


def _describe_needs(person: dict[str, Any]) -> str:
    words = {"High": "most", "Medium": "next", "Low": "least"}
    parts = []
    for level, word in words.items():
        reason = " ".join(str(person["value2reason"][level]).split()).strip('"')
        issue = person["value2issue"][level].lower()
        parts.append(f'You need {issue} {word}, worth {POINTS[level]} points a package to you: "{reason}"')
    return " ".join(parts)


def _issue_points(person: dict[str, Any]) -> dict[str, int]:
    worth = {person["value2issue"][level]: points for level, points in POINTS.items()}
    return {issue: worth[issue] for issue in ISSUES}


def _find_deal(log: list[dict[str, Any]], first: str) -> dict[str, dict[str, int]] | None:
    # The accepted deal is the last one submitted; the one who submitted it counts as "you".
    if log[-1]["text"] != "Accept-Deal":
        return None
    submitted = next(entry for entry in reversed(log) if entry["text"] == "Submit-Deal")
    own, other = (submitted["task_data"][key] for key in ("issue2youget", "issue2theyget"))
    shares = (own, other) if submitted["id"] == first else (other, own)
    return {name: {issue: int(share[issue]) for issue in ISSUES} for name, share in zip("ab", shares, strict=True)}
