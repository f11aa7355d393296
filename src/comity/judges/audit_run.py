"""Run an audit: read rows and verdicts, ask the judges that are named, take the figures, write audit.json."""

import dataclasses
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from comity.errors import DataError
from comity.judges.attack_run import AttackedJudge, attack_judges
from comity.judges.attacks import Attack, read_attacks
from comity.judges.audit import Section, audit_authors, audit_raters
from comity.judges.audit_endings import audit_casino, audit_endings
from comity.judges.audit_pairwise import (
    Preference,
    ask_in_both_orders,
    audit_preferences,
    pair_rows,
    read_preferences,
)
from comity.judges.audit_rows import (
    TRANSCRIPT_COLUMNS,
    VERDICT_FIELDS,
    AuditRow,
    AuditTable,
    Rater,
    choose_balanced,
    read_audit_rows,
    read_column,
    read_verdicts,
    take_rows,
)
from comity.judges.audit_statistics import Resampling
from comity.judges.casino import CasinoEnding, read_casino
from comity.judges.embedded import EMBEDDED_JUDGE
from comity.judges.labels import Kind
from comity.judges.score import judge_items
from comity.runs import write_json
from comity.scenarios.rows import write_rows
from comity.types import AgencyJudge, AgreementJudge, PreferenceJudge, Verdict

EMBEDDED_JUDGES = (EMBEDDED_JUDGE, f"{EMBEDDED_JUDGE}:heldout")
"""The judges that are asked when none is named: the training head and the head that never trains anything."""
Judge = AgreementJudge | AgencyJudge
BuildJudge = Callable[[Kind, str, int], Judge]
"""Builds a judge by kind, name and number of the ask; with another number it judges the same rows anew."""
BuildPreference = Callable[[str], PreferenceJudge]
"""Builds a judge that compares two answers, by its name."""
PrepareAttacked = Callable[[str, Sequence[Attack]], AttackedJudge]
"""Builds what some attacks need of a judge, by its name."""


@dataclass(frozen=True, slots=True)
class AuditRequest:
    """What to audit. Names of raters come with a field, with files of verdicts, or alone for a judge that is asked."""

    kind: Kind
    out: Path
    rows: Path | None = None
    """None: the shipped held-out rows, or the rows of the first file of verdicts."""
    judges: tuple[str, ...] | None = None
    """Judges to ask; None: both embedded heads, unless the rows or files of verdicts bring judges along."""
    verdicts: Mapping[str, tuple[Path, ...]] = field(default_factory=dict)
    columns: Mapping[str, str] = field(default_factory=dict)
    labels: str | None = None
    """The field of the rows that holds labels; the shipped rows have one of their own."""
    human: str | None = None
    """The field of the rows that holds human ratings."""
    author: str = "author"
    """The field of the rows that names who wrote the text."""
    own: Mapping[str, str] = field(default_factory=dict)
    """Judge to author, where a judge goes by another name in the rows."""
    pairwise: Mapping[str, Path] = field(default_factory=dict)
    prefer: tuple[str, ...] = ()
    """Judges to ask which of two answers of the rows to one dilemma is better, in both orders."""
    attacks: Path | None = None
    """Attacks that the judges that are asked have to stand."""
    casino: Path | None = None
    repeats: int = 1
    """How often each judge is asked about each row; the first verdict counts, all say how far it repeats itself."""
    per_level: int | None = None
    """At most so many rows of each score of the rater `balance`."""
    balance: str | None = None
    resampling: Resampling = field(default_factory=Resampling)


def run_audit(
    request: AuditRequest,
    build: BuildJudge,
    date: str,
    build_preference: BuildPreference | None = None,
    prepare_attacked: PrepareAttacked | None = None,
) -> dict[str, Any]:
    """Write OUT/audit.json and OUT/verdicts/ of the judges asked, and return what audit.json holds.

    All files are read before a judge is built, so that bad input costs nothing; the verdicts of a judge are written as
    soon as it has answered. What `prefer` and `attacks` ask for needs the last two. Raise DataError for bad rows, or
    fewer than two raters.
    """
    table, judges = _read_table(request)
    if request.casino is not None and not judges:
        raise DataError(f"--casino {request.casino}: these dialogues are read by a judge that is asked; add --judge")
    endings = read_casino(request.casino) if request.casino is not None else []
    preferences: dict[str, Sequence[Preference]] = {}
    preferences |= {name: read_preferences(path) for name, path in request.pairwise.items()}
    attacks = _read_attacks(request, judges)
    built = {name: [build(request.kind, name, repeat) for repeat in range(request.repeats)] for name in judges}
    table = _ask_judges(request, table, built)
    audit: dict[str, Any] = {
        "kind": request.kind,
        "date": date,
        "source": _name_source(request) if table.rows else ", ".join(path.name for path in request.pairwise.values()),
        "rows": len(table.rows),
        "dilemmas": len(set(table.clusters)),
        "per_level": request.per_level,
    } | dataclasses.asdict(request.resampling)
    audit |= audit_raters(table, request.resampling)
    audit["authors"], audit["self_preference"] = audit_authors(table, request.author, request.own, request.resampling)
    truth = next((rater for rater in table.raters if rater.role != "judge"), None)
    if request.kind == "agreement" and truth is not None:
        audit["endings"] = audit_endings(table, truth, request.resampling)
        audit["truth"] = truth.name
    if endings:
        audit["casino"] = [_ask_casino(name, asks[0], endings, request) for name, asks in built.items()]
    if build_preference is not None:
        preferences |= _ask_preferences(request, table, build_preference)
    if preferences:
        audit["pairwise"] = _audit_pairwise(request, preferences)
    if attacks and prepare_attacked is not None:
        audit["attacks"] = attack_judges(attacks, [prepare_attacked(name, attacks) for name in judges], date)
    audit["points"] = [
        {"id": row.id, "words": row.words, "values": [rater.values[i] for rater in table.raters]}
        for i, row in enumerate(table.rows)
    ]
    write_json(request.out / "audit.json", audit)
    return audit


def _read_table(request: AuditRequest) -> tuple[AuditTable, tuple[str, ...]]:
    # The rows with the raters that files bring along, and the names of the judges to ask.
    rated = request.rows or request.verdicts or request.columns or request.judges or request.labels or request.human
    if request.pairwise and not rated and not request.prefer:
        return AuditTable(request.kind, (), ()), ()
    source = request.rows
    if source is None and request.verdicts:
        source = next(iter(request.verdicts.values()))[0]
    rows = read_audit_rows(request.kind, source)
    table = AuditTable(request.kind, tuple(rows), tuple(_read_raters(request, rows)))
    judges = request.judges
    if judges is None:
        judges = () if any(rater.role == "judge" for rater in table.raters) else EMBEDDED_JUDGES
    _check_names(request, [rater.name for rater in table.raters] + list(judges))
    return table, judges


def _read_raters(request: AuditRequest, rows: Sequence[AuditRow]) -> list[Rater]:
    kind = request.kind
    shipped = request.rows is None and not request.verdicts
    labels = VERDICT_FIELDS[kind] if shipped and request.labels is None else request.labels
    raters = []
    if labels is not None:
        raters.append(read_column(kind, rows, labels, "labels", "labels"))
    if request.human is not None:
        raters.append(read_column(kind, rows, request.human, "human", "human"))
    columns = dict(request.columns)
    if not (columns or request.verdicts or request.judges is not None) and all(
        "messages" in row.fields for row in rows
    ):
        fields = {name for row in rows for name in row.fields}
        columns = {name: column for name, column in TRANSCRIPT_COLUMNS[kind] if column in fields}
    raters += [read_column(kind, rows, column, name, "judge") for name, column in columns.items()]
    raters += [read_verdicts(kind, rows, name, paths) for name, paths in request.verdicts.items()]
    return raters


def _check_names(request: AuditRequest, names: Sequence[str]) -> None:
    twice = [name for name in names if names.count(name) > 1]
    if twice:
        raise DataError(f"rater {twice[0]!r} is named twice: give each rater its own name")
    if len(names) < 2:
        found = names[0] if names else "none"
        raise DataError(f"raters are {found}: an audit needs two; add --judge, --verdicts, --column or --human")
    if request.balance is not None and request.balance not in names:
        raise DataError(f"--balance {request.balance}: is no rater here; choose among {', '.join(names)}")


def _ask_judges(request: AuditRequest, table: AuditTable, built: Mapping[str, Sequence[Judge]]) -> AuditTable:
    # The rows are thinned as soon as the rater that balances them is known, so that later judges read fewer.
    balance = request.balance or next(iter([*(rater.name for rater in table.raters), *built]), "")
    table = _balance(request, table, balance)
    for name in sorted(built, key=lambda name: name != balance):
        asks = [judge_items(request.kind, [row.item for row in table.rows], judge) for judge in built[name]]
        _write_verdicts(request, table, name, asks)
        values = [tuple(_read_verdict(request.kind, verdict) for verdict in verdicts) for verdicts in asks]
        rater = Rater(name, "judge", values[0], tuple(zip(*values, strict=True)) if len(values) > 1 else ())
        table = replace(table, raters=(*table.raters, rater))
        if name == balance:
            table = _balance(request, table, balance)
    return table


def _balance(request: AuditRequest, table: AuditTable, balance: str) -> AuditTable:
    known = next((rater for rater in table.raters if rater.name == balance), None)
    if request.per_level is None or known is None:
        return table
    return take_rows(table, choose_balanced(known.values, request.per_level, request.resampling.seed))


def _write_verdicts(request: AuditRequest, table: AuditTable, name: str, asks: Sequence[Sequence[Verdict]]) -> None:
    found = [
        {"id": row.id}
        | dataclasses.asdict(row.item)
        | {VERDICT_FIELDS[request.kind]: verdict.score if request.kind == "agency" else verdict.agreed}
        | ({"reason": verdict.text} if verdict.text else {})
        | ({"repeat": repeat} if len(asks) > 1 else {})
        for repeat, verdicts in enumerate(asks)
        for row, verdict in zip(table.rows, verdicts, strict=True)
    ]
    write_rows(request.out / "verdicts" / f"{_to_file_name(name)}.jsonl", found)


def _to_file_name(name: str) -> str:
    return re.sub(r"[^\w.-]+", "-", name)


def _read_verdict(kind: Kind, verdict: Verdict) -> float | None:
    if kind == "agency":
        return verdict.score
    return None if verdict.agreed is None else float(verdict.agreed)


def _read_attacks(request: AuditRequest, judges: Sequence[str]) -> list[Attack]:
    if request.attacks is None:
        return []
    if not judges:
        raise DataError(f"--attacks {request.attacks}: are for judges that are asked; add --judge")
    attacks = [attack for attack in read_attacks(request.attacks) if attack.kind == request.kind]
    if not attacks:
        raise DataError(f"--attacks {request.attacks}: has none for --kind {request.kind}; give a file that has")
    return attacks


def _ask_preferences(
    request: AuditRequest, table: AuditTable, build: BuildPreference
) -> dict[str, Sequence[Preference]]:
    if not request.prefer:
        return {}
    truth = next((rater for rater in table.raters if rater.role != "judge"), None)
    pairs = pair_rows(table.rows, None if truth is None else truth.values, request.author, request.resampling.seed)
    if not pairs:
        raise DataError(f"--prefer {request.prefer[0]}: no dilemma has two answers here; give rows that do")
    found: dict[str, Sequence[Preference]] = {}
    for name in request.prefer:
        rows = ask_in_both_orders(pairs, build(name))
        path = request.out / "verdicts" / f"prefer-{_to_file_name(name)}.jsonl"
        write_rows(path, rows)
        found[f"prefer:{name}" if name in request.pairwise else name] = read_preferences(path)
    return found


def _ask_casino(name: str, judge: Judge, endings: Sequence[CasinoEnding], request: AuditRequest) -> dict[str, Any]:
    verdicts = judge_items("agreement", [ending.ending for ending in endings], judge)
    agreed = [_read_verdict("agreement", verdict) for verdict in verdicts]
    return audit_casino(name, endings, agreed, request.resampling)


def _audit_pairwise(request: AuditRequest, preferences: Mapping[str, Sequence[Preference]]) -> Section:
    return [
        audit_preferences(
            name,
            verdicts,
            request.own.get(name, name),
            request.resampling,
            [verdict for other, found in preferences.items() if other != name for verdict in found],
        )
        for name, verdicts in preferences.items()
    ]


def _name_source(request: AuditRequest) -> str:
    if request.rows is not None:
        return request.rows.name
    if request.verdicts:
        return next(iter(request.verdicts.values()))[0].name
    return "the shipped held-out rows"
