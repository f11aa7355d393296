"""Reports in a real browser without a network: whole, without an error, asking for nothing."""

import pytest
from test_contest_page import make_row as make_contest_row
from test_contest_page import write as write_contest
from test_report import add_evaluation, make_row, write_lines

from comity.report.contest import write_contest_report
from comity.report.report import write_report

pytestmark = pytest.mark.slow


def make_run_report(folder):
    metrics = [
        {"step": step, "agreement/rate": 0.5, "agreement/rounds": 2.0, "reward/group_min": 0.5,
         "reward/group_mean": 1.0, "reward/group_max": 2.0} for step in (1, 2, 3)
    ]  # fmt: skip
    write_lines(folder / "metrics.jsonl", metrics)
    write_lines(folder / "negotiations/step-000001.jsonl", [make_row("t1")])
    add_evaluation(folder)
    return write_report(folder)


def make_contest_report(folder):
    write_contest(folder, [make_contest_row(model, f"t{n}") for model in ("base", "multi") for n in range(4)])
    return write_contest_report(folder)


@pytest.mark.parametrize(
    ("make", "figures", "words"),
    [(make_run_report, 4, "Rounds to agreement"), (make_contest_report, 3, "Win rate of the row over the column")],
)
def test_a_report_opens_from_its_file_without_a_network(browser, tmp_path, make, figures, words):
    path = make(tmp_path)
    context = browser.new_context(offline=True)
    page = context.new_page()
    asked, problems = [], []
    page.on("request", lambda request: asked.append(request.url))
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.on("console", lambda message: problems.append(message.text) if message.type == "error" else None)
    page.goto(path.as_uri())
    assert page.locator("h1").inner_text() == tmp_path.name
    assert page.locator("figure svg").count() >= figures
    drawn = page.locator("figure svg").first.bounding_box()
    assert drawn["width"] > 100
    assert drawn["height"] > 50
    assert page.get_by_text(words).count() > 0
    assert asked == [path.as_uri()]
    assert problems == []
    context.close()
