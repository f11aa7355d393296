"""Blind ratings: what the browser gets, keeping and taking back, agreement by hand, labels for calibration."""

import re
import sqlite3
from pathlib import Path

import pytest
from made_runs import add_evaluation, csrf_of, make_run, open_viewer, post, read_lines

from comity.errors import ConfigError, RunError
from comity.judges.labels import read_labels
from comity.viewer.app import find_ratings
from comity.viewer.rater_agreement import compare_judges, compare_raters, count_wins
from comity.viewer.ratings import Item, Rating, RatingStore, Study, is_swapped, next_item, read_name
from comity.viewer.settings import ViewConfig

AGENCY = Study(1, "agency", "made", 0)
PREFERENCE = Study(2, "preference", "made", 0)
AGREEMENT = Study(3, "agreement", "made", 0)


@pytest.fixture
def runs(tmp_path):
    """Return the folder of a run with an evaluation of 20 pairs."""
    add_evaluation(make_run(tmp_path / "runs" / "small", steps=2), count=20)
    return tmp_path / "runs"


@pytest.fixture
def client(runs, tmp_path):
    """Return a client with a rater's name."""
    client = open_viewer(runs, tmp_path / "cache")
    assert post(client, "/rate/name", name=" Ada  L. ").headers["location"] == "/rate"
    return client


def rate(ratings, study=AGENCY, contents=None):
    """Return ratings from (rater, item number, value)."""
    contents = contents or {}
    return [
        Rating(number, Item(f"i{place}", place, contents.get(place, {})), rater, float(value))
        for number, (rater, place, value) in enumerate(ratings)
    ]


def start_study(client, kind="preference", **fields):
    chosen = {"source": "before@small", "other": "after@small", "count": "20", "seed": "1", "kind": kind, **fields}
    answer = post(client, "/rate/studies", **chosen)
    assert answer.status_code == 303, answer.text
    return answer.headers["location"]


def test_a_rater_sees_no_name_and_no_score_until_the_results(client):
    study = start_study(client)
    page = client.get(study).text
    body = page[page.index("<main") :]
    assert "They share the garden" in body
    for secret in ("before", "after", "small", "2.00", "1.00"):
        assert secret not in body
    studies = client.get("/rate").text
    assert "told once all are rated" in studies[: studies.index("New study")]
    assert "small before" not in studies[: studies.index("New study")]
    assert "no longer blind" not in client.get(f"{study}/results").text
    item = re.search(rf"{study}/items/([^\"]+)", page)[1]
    assert post(client, f"{study}/items/{item}", value="left").status_code == 303
    results = client.get(f"{study}/results").text
    assert "small before 1.00" in results


def test_sides_and_order_are_drawn_for_each_rater():
    items = [Item(f"i{place}", place, {}) for place in range(200)]
    swapped = sum(is_swapped(PREFERENCE, "Ada", item) for item in items)
    assert 60 < swapped < 140  # 200 fair draws: 100, standard deviation 7
    orders = []
    for rater in ("Ada", "Bo"):
        rated = []
        while (item := next_item(PREFERENCE, items, rater, rated)) is not None:
            rated.append(Rating(len(rated), item, rater, 0.0))
        orders.append([rating.item.place for rating in rated])
    assert sorted(orders[0]) == sorted(orders[1]) == list(range(200))
    assert orders[0] != orders[1]


def test_left_and_right_are_turned_back_into_the_sources(client, runs):
    study = start_study(client)
    for _ in range(20):
        page = client.get(study).text
        item = re.search(rf"{study}/items/([^\"]+)", page)[1]
        post(client, f"{study}/items/{item}", value="left")
    assert "All 20 rated" in client.get(study).text
    assert "small before against small after" in client.get("/rate").text
    rows = read_lines(client.get(f"{study}/labels.jsonl").text)
    store = RatingStore(runs / "ratings.sqlite")
    made = store.find_study(int(study.rpartition("/")[2]))
    for rating in store.list_ratings(made):
        # Who pressed left prefers the first answer unless the sides were swapped.
        assert rating.value == float(is_swapped(made, "Ada L.", rating.item))
    # Left was preferred each time, and `first` says which side was left.
    assert {row["preferred"] for row in rows} == {"a", "b"}
    assert all(row["preferred"] == row["first"] for row in rows)
    assert {row["author_a"] for row in rows} == {"small before"}


def test_the_latest_rating_is_taken_back_and_nothing_is_lost(client, runs):
    study = start_study(client, kind="agency", source="after@small")
    first = re.search(rf"{study}/items/([^\"]+)", client.get(study).text)[1]
    post(client, f"{study}/items/{first}", value="3")
    second = re.search(rf"{study}/items/([^\"]+)", client.get(study).text)[1]
    assert second != first
    post(client, f"{study}/undo")
    assert re.search(rf"{study}/items/([^\"]+)", client.get(study).text)[1] == first
    post(client, f"{study}/items/{first}", value="5")
    assert [row["score"] for row in read_lines(client.get(f"{study}/labels.jsonl").text)] == [5]
    with sqlite3.connect(runs / "ratings.sqlite") as connection:
        assert connection.execute("SELECT value FROM ratings ORDER BY id").fetchall() == [(3.0,), (5.0,)]
        for statement in ("UPDATE ratings SET value = 0", "DELETE FROM ratings", "DELETE FROM withdrawals"):
            with pytest.raises(sqlite3.IntegrityError, match="append-only"):
                connection.execute(statement)
    connection.close()


@pytest.mark.parametrize(("value", "status"), [("6", 409), ("2.5", 409), ("left", 404), ("many", 422), ("nan", 409)])
def test_ratings_off_the_scale_are_refused(client, value, status):
    study = start_study(client, kind="agency", source="after@small")
    item = re.search(rf"{study}/items/([^\"]+)", client.get(study).text)[1]
    assert post(client, f"{study}/items/{item}", value=value).status_code == status


def test_a_second_rating_and_a_foreign_item_are_refused(client):
    study = start_study(client, kind="agency", source="after@small")
    item = re.search(rf"{study}/items/([^\"]+)", client.get(study).text)[1]
    post(client, f"{study}/items/{item}", value="1")
    assert "is there already" in post(client, f"{study}/items/{item}", value="2").text
    assert "not in this study" in post(client, f"{study}/items/other", value="2").text


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"other": "before@small"}, "choose two different ones"),
        ({"source": "train@small"}, "choose parts of evaluations"),
        ({"source": "nothing@small"}, "choose one of the list"),
        ({"count": "0"}, "count is 0: choose 1 to 500"),
    ],
)
def test_studies_that_do_not_fit_are_refused(client, fields, words):
    chosen = {"source": "before@small", "other": "after@small", "kind": "preference", **fields}
    answer = post(client, "/rate/studies", **chosen)
    assert answer.status_code == 422
    assert words in answer.text


@pytest.mark.parametrize("kind", ["agency", "agreement"])
def test_exported_labels_are_read_by_calibration(client, tmp_path, kind):
    study = start_study(client, kind=kind, source="train@small", count="4")
    for _ in range(4):
        item = re.search(rf"{study}/items/([^\"]+)", client.get(study).text)[1]
        post(client, f"{study}/items/{item}", value="1")
    path = tmp_path / "labels.jsonl"
    path.write_text(client.get(f"{study}/labels.jsonl?part=train").text, encoding="utf-8")
    labels = read_labels(kind, path)
    assert [label.target for label in labels] == [1.0] * 4
    assert {label.part for label in labels} == {"train"}
    assert {label.author for label in labels} == {"Ada L."}
    assert all(re.fullmatch(r"day-\d{3}", label.dilemma_id) for label in labels)


def test_without_a_name_nobody_rates(runs, tmp_path):
    client = open_viewer(runs, tmp_path / "cache")
    study = start_study(client, kind="agency", source="after@small")
    assert client.get(study).headers["location"] == "/rate"
    assert post(client, f"{study}/items/x", value="1").status_code == 409


@pytest.mark.parametrize("name", ["", "  ", "x" * 41, "a\x00b"])
def test_names_that_do_not_fit_are_refused(name):
    with pytest.raises(ConfigError, match="name"):
        read_name(name)


def test_ratings_lie_beside_the_runs_never_inside_one(runs):
    assert find_ratings(ViewConfig(), runs) == runs / "ratings.sqlite"
    assert find_ratings(ViewConfig(), runs / "small") == runs / "ratings.sqlite"
    assert find_ratings(ViewConfig(ratings="mine.sqlite"), runs) == Path("mine.sqlite")


def test_a_file_that_is_no_database_is_named(tmp_path):
    (tmp_path / "ratings.sqlite").write_text("these are not ratings, but more than a header's worth of text" * 20)
    with pytest.raises(RunError, match="choose another --ratings"):
        RatingStore(tmp_path / "ratings.sqlite").list_studies()


def test_agreement_between_raters_by_hand():
    # Four items, two raters, one disagreement: yes yes, yes yes, no no, yes no.
    # Cohen: observed 3/4; chance 3/4 * 2/4 + 1/4 * 2/4 = 1/2; kappa = (3/4 - 1/2) / (1 - 1/2) = 1/2.
    # Krippendorff, nominal: 8 values, 5 yes and 3 no; observed disagreement 2/8, expected 2*5*3/(8*7) = 30/56;
    # alpha = 1 - (2/8) / (30/56) = 1 - 14/30 = 0.5333.
    values = [("Ada", 0, 1), ("Ada", 1, 1), ("Ada", 2, 0), ("Ada", 3, 1)]
    values += [("Bo", 0, 1), ("Bo", 1, 1), ("Bo", 2, 0), ("Bo", 3, 0)]
    alpha, kappa = compare_raters(AGREEMENT, rate(values))
    assert (alpha.n, kappa.n) == (4, 4)
    assert alpha.value == pytest.approx(1 - 14 / 30)
    assert kappa.value == pytest.approx(0.5)


def test_agreement_that_is_undefined_is_none():
    same = rate([("Ada", 0, 3), ("Bo", 0, 3)])
    assert [figure.value for figure in compare_raters(AGENCY, same)] == [None, None]
    apart = rate([("Ada", 0, 3), ("Bo", 1, 4)])
    assert [(figure.value, figure.n) for figure in compare_raters(AGENCY, apart)] == [(None, 0), (None, 0)]


def test_agreement_with_the_judges_leaves_out_what_is_unscored():
    # Means 1, 3 and 5 against 2, 3 and 4: the order is the same, errors 1, 0 and 1. The fourth item is unscored.
    contents = {
        place: {"score": score, "heldout_score": None} for place, score in enumerate((2.0, 3.0, 4.0, None))
    }  # fmt: skip
    ratings = rate([("Ada", 0, 1), ("Ada", 1, 2), ("Bo", 1, 4), ("Ada", 2, 5), ("Ada", 3, 0)], contents=contents)
    figures = {figure.name: figure for figure in compare_judges(AGENCY, ratings)}
    assert figures["Spearman, training judge"].value == pytest.approx(1.0)
    assert figures["mean absolute error, training judge"].value == pytest.approx(2 / 3)
    assert figures["Spearman, training judge"].n == 3
    assert (figures["Spearman, held-out judge"].value, figures["Spearman, held-out judge"].n) == (None, 0)


def test_wins_and_preferences_of_the_judges_by_hand():
    # Second preferred on items 0 and 1, neither on 2, first on 3; the judge has the second higher on 0 and 3 and no
    # word on 1: of the two that count, item 0 is the same and item 3 is not.
    scores = {0: [1.0, 2.0], 1: [None, 2.0], 2: [1.0, 2.0], 3: [1.0, 2.0]}
    contents = {
        place: {"names": ["base", "trained"], "scores": pair, "heldout_scores": [1.0, 1.0]}
        for place, pair in scores.items()
    }
    ratings = rate([("Ada", 0, 1), ("Ada", 1, 1), ("Ada", 2, 0.5), ("Ada", 3, 0)], contents=contents)
    base, trained = count_wins(ratings)
    assert (base.name, base.wins, base.losses, base.ties) == ("base", 1, 2, 1)
    assert (trained.name, trained.wins, trained.losses, trained.ties) == ("trained", 2, 1, 1)
    training, heldout = compare_judges(PREFERENCE, ratings)
    assert (training.value, training.n) == (0.5, 2)
    assert (heldout.value, heldout.n) == (None, 0)


def test_a_forged_rating_is_refused(client):
    study = start_study(client, kind="agency", source="after@small")
    assert client.post(f"{study}/undo").status_code == 403
    assert client.post(f"{study}/undo", data={"csrf": "0" * 64}).status_code == 403
    assert client.post(f"{study}/undo", data={"csrf": csrf_of(client)}).status_code == 303
