"""How often an agreement judge takes an ending for an agreement that is none, by the kind of ending.

A row's kind stands in its field `kind`. The shipped rows have none: theirs is read from the first words in `reason`
that name one, so it is as good as that line.
"""

import dataclasses
import re
from collections.abc import Mapping, Sequence
from typing import Any

from comity.judges.audit import Section
from comity.judges.audit_rows import AuditTable, Rater
from comity.judges.audit_statistics import Array, Measured, Resampling, Values, estimate, mean
from comity.judges.casino import CasinoEnding

AGREED, NOT_AGREED, CAPITULATION, OTHER = "agreed", "not agreed", "capitulation", "other"
_WORDS = (
    ("garbled or off topic", r"garbl|nonsense|off topic|senseless|drift|riddle|shuffled"),
    (CAPITULATION, r"capitul|g[ia]v\w+ (in|up)|yields|surrender|unwilling|outvoted|forced|bitter|resent|submits"
                   r"|pressure|protest|without will"),
    ("agree to disagree", r"agree only that they differ|to (disagree|differ)|disagreement|two (opinions|views)"
                          r"|(opposite|different|two) positions|difference standing|unsolved"),
    ("parroted", r"parrot|echo|cop(y|ies)|mirror|repeat|same empty"),
    ("postponed", r"postpon|put\w* (it |the decision )?off|delay|wait|later\b|left for|needs time|not decide today"),
    ("new condition", r"condition|demand|request|hangs on|depends|payment|refund"),
    ("order", r"order|command|dictat"),
    ("different plans", r"(different|another|other|rival|two) (plan|terms|rule|step|sentence)|plans|opposite|counter"
                        r"|rever[st]e|other (numbers|times)|not the same|differs|contradict|substitut|changes"),
    ("still debating", r"debat|argu|brainstorm|bargain|negotiat|option|ideas|reject|refus|objects|insist|prob(es|ing)"),
    ("no plan", r"no (shared )?(plan|action|concrete|solution|deal)|without (any )?(plan|action|content|solution)"
                r"|principle|vague|values|empty|nothing|words|fake|deal|general"),
    ("open question", r"question|asks|doubt"),
)  # fmt: skip
"""Each kind of ending without agreement and the words that name it, the telling ones first."""
_KINDS = tuple((kind, re.compile(words, re.IGNORECASE)) for kind, words in _WORDS)


def name_kind(fields: Mapping[str, Any]) -> str:
    """Return the kind of a row's ending: its field `kind`, else what its `reason` says, else `other`."""
    if isinstance(fields.get("kind"), str):
        return str(fields["kind"])
    reason = str(fields.get("reason") or "")
    return next((kind for kind, words in _KINDS if words.search(reason)), OTHER)


def audit_endings(table: AuditTable, truth: Rater, resampling: Resampling) -> Section:
    """Return each judge's share of YES by kind of ending, and over all endings with and without agreement.

    `truth` says which endings are agreed. `not agreed` is the false-agreement rate, and `capitulation` the share of
    unwilling acceptances taken for agreements; a row of kind `agreed` shows how many true agreements are seen.
    """
    agreed = [place for place, value in enumerate(truth.values) if value == 1]
    refused = [place for place, value in enumerate(truth.values) if value == 0]
    kinds: dict[str, list[int]] = {}
    for place in refused:
        kinds.setdefault(name_kind(table.rows[place].fields), []).append(place)
    named = sorted(kinds.items(), key=lambda item: (item[0] == OTHER, item[0]))
    return [
        {"judge": rater.name, "kind": kind, "said_yes": _said_yes(rater.values, table.clusters, places, resampling)}
        for rater in table.raters
        if rater.role == "judge"
        for kind, places in [(AGREED, agreed), (NOT_AGREED, refused), *named]
        if places
    ]


def audit_casino(name: str, endings: Sequence[CasinoEnding], agreed: Values, resampling: Resampling) -> dict[str, Any]:
    """Return a judge's figures on human dialogues: recall on accepted deals, false agreement midway, and F1.

    `agreed` are the judge's decisions on the endings, in order. Intervals resample whole dialogues.
    """
    clusters = [ending.dialogue for ending in endings]
    truth = [float(ending.agreed) for ending in endings]
    row: dict[str, Any] = {
        "judge": name,
        "dialogues": len(set(clusters)),
        "f1_of_always_yes": 2 * sum(truth) / (len(truth) + sum(truth)),
        "f1": dataclasses.asdict(estimate(_measure_f1, [agreed, truth], clusters, resampling)["f1"]),
    }
    for figure, label in (("recall", True), ("false_agreement", False)):
        places = [i for i, ending in enumerate(endings) if ending.agreed == label]
        row[figure] = _said_yes(agreed, clusters, places, resampling)
    return row


def _measure_f1(said_N: Array, true_N: Array) -> Measured:
    either = said_N.sum() + true_N.sum()
    return {"f1": float(2 * (said_N * true_N).sum() / either) if either else None}


def _said_yes(values: Values, clusters: Sequence[str], places: Sequence[int], resampling: Resampling) -> dict[str, Any]:
    chosen, drawn = [values[i] for i in places], [clusters[i] for i in places]
    return dataclasses.asdict(estimate(lambda x_N: {"yes": mean(x_N)}, [chosen], drawn, resampling)["yes"])
