"""What an audit found, in sentences that follow from its numbers alone, so that they cannot outlive them."""

import itertools
from collections.abc import Iterator, Mapping
from typing import Any

from comity.report.tables import show

Audit = Mapping[str, Any]
"""What audit.json holds, or one row of it."""


def word_audit(audit: Audit) -> list[str]:
    """Return the findings of an audit, one sentence each; what it has no numbers for is left out."""
    judges = [row["rater"] for row in audit["raters"] if row["role"] == "judge"]
    truth = next((row["rater"] for row in audit["raters"] if row["role"] != "judge"), None)
    return [
        *_word_agreement(audit, judges, truth),
        *_word_leanings(audit, judges, truth),
        *_word_endings(audit),
        *_word_pairwise(audit),
        *(word_attacks(audit["attacks"]) if "attacks" in audit else []),
    ]


def word_attacks(found: Audit) -> list[str]:
    """Return what the attack suite found, one sentence a kind and judge, beside what harmless sentences do."""
    rows = {(row["kind"], row["judge"], row["family"]): row for row in found["rows"]}
    sentences = []
    for kind, judge in dict.fromkeys((row["kind"], row["judge"]) for row in found["rows"]):
        tried, control = rows.get((kind, judge, "all attacks")), rows.get((kind, judge, "control"))
        if tried is None or not tried["tried"]:
            continue
        words = f"{judge}, {kind}: {tried['succeeded']} of {tried['tried']} attacks succeed"
        if control is not None and control["tried"]:
            words += f"; so do {control['succeeded']} of {control['tried']} harmless sentences"
        sentences.append(words + ".")
    return sentences


def _word_agreement(audit: Audit, judges: list[str], truth: str | None) -> Iterator[str]:
    pairs = {(row["first"], row["second"]): row for row in audit["pairs"]}
    kappas = {names: row["kappa"]["value"] for names, row in pairs.items()}
    for judge in judges if truth is not None else ():
        row = pairs[truth, judge]
        if row["kappa"]["value"] is not None:
            within = f", within one {show(row['within_one']['value'], 'share')}" if "within_one" in row else ""
            exact = show(row["exact"]["value"], "share")
            yield f"{judge} and the {truth}: kappa {_with_interval(row['kappa'])}, exact {exact}{within}."
    for one, other in itertools.combinations(judges, 2):
        kappa = kappas.get((one, other))
        if kappa is None:
            continue
        known = [kappas[truth, judge] for judge in (one, other)] if truth is not None else []
        more = known and all(value is not None and kappa > value for value in known)
        tail = f", more than either with the {truth}: what fools one may fool both" if more else ""
        yield f"{one} and {other}: kappa {_with_interval(pairs[one, other]['kappa'])}{tail}."


def _word_leanings(audit: Audit, judges: list[str], truth: str | None) -> Iterator[str]:
    # A leaning is told when its interval leaves out 0; that none is clear is told too.
    if truth is not None:
        given = {row["rater"]: row["given"][truth] for row in audit["length"] if row["rater"] in judges}
        clear = {judge: figure for judge, figure in given.items() if _is_clear(figure)}
        for judge, figure in clear.items():
            more = "higher" if figure["value"] > 0 else "lower"
            yield f"With the {truth} held still, {judge} judges longer texts {more}: {_with_interval(figure)}."
        if given and not clear:
            yield f"With the {truth} held still, no judge's verdicts clearly change with length."
    own = {row["rater"]: row for row in audit["self_preference"]}
    clear = {judge: row["preference"] for judge, row in own.items() if _is_clear(row["preference"])}
    for judge, figure in clear.items():
        word = "prefers" if figure["value"] > 0 else "marks down"
        yield f"{judge} {word} texts of its own author ({own[judge]['author']}): {_with_interval(figure)}."
    if own and not clear:
        yield "No judge clearly prefers texts of its own author."


def _word_endings(audit: Audit) -> Iterator[str]:
    said = {(row["judge"], row["kind"]): row["said_yes"] for row in audit.get("endings", ())}
    for judge in dict.fromkeys(judge for judge, _ in said):
        parts = [
            f"{words} {_with_interval(figure, 'share')} (n {figure['n']})"
            for kind, words in (
                ("not agreed", "false agreement in"), ("capitulation", "capitulations taken for agreements in"),
                ("agreed", "agreements seen in"),
            )
            if (figure := said.get((judge, kind))) is not None and figure["value"] is not None
        ]  # fmt: skip
        if parts:
            yield f"{judge}: {', '.join(parts)}."
    for row in audit.get("casino", ()):
        if row["f1"]["value"] is not None:
            best = show(row["f1_of_always_yes"])
            yield f"{row['judge']} on human dialogues: F1 {_with_interval(row['f1'])}; always saying YES has {best}."


def _word_pairwise(audit: Audit) -> Iterator[str]:
    for row in audit.get("pairwise", ()):
        parts = [
            f"{words} {_with_interval(row[figure], 'share')}"
            for figure, words in (
                ("order_flips", "changes its verdict with the order in"), ("first_shown", "takes the first shown in"),
                ("longer", "the longer answer in"), ("own", "its own answer in"),
            )
            if row[figure]["value"] is not None
        ]  # fmt: skip
        if parts:
            yield f"{row['judge']} {', '.join(parts)}."


def _with_interval(figure: Audit, kind: str = "number") -> str:
    value = show(figure["value"], kind)
    if figure["low"] is None:
        return value
    return f"{value} [{show(figure['low'], kind).removesuffix(' %')} to {show(figure['high'], kind)}]"


def _is_clear(figure: Audit) -> bool:
    return figure["low"] is not None and bool(figure["low"] > 0 or figure["high"] < 0)
