"""The viewer in a real browser: live pages, keys, a whole game, blind ratings, hostile text, accessibility."""

import re

import pytest
from loopback_viewer import serve_viewer
from made_runs import ScriptedCast, add_evaluation, judge_made, make_run, write_step

from comity.config import NegotiationConfig
from comity.runs import negotiation_row, write_negotiations
from comity.scenarios.rows import write_rows
from comity.types import Sampling
from comity.viewer.cast import LocalCast
from comity.viewer.export import export_run
from comity.viewer.library import Library
from comity.viewer.settings import ViewConfig

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed: make setup")
pytestmark = pytest.mark.slow
HOSTILE = "<script>window.taken = 1</script><img src=x onerror='window.taken = 2'><svg onload='window.taken = 3'>"
WAIT_MS = 20_000


@pytest.fixture
def page(browser):
    """Return a page of its own context that collects errors."""
    context = browser.new_context(reduced_motion="reduce")
    context.set_default_timeout(WAIT_MS)
    page = context.new_page()
    page.problems = []
    page.on("pageerror", lambda error: page.problems.append(str(error)))
    page.on("dialog", lambda dialog: page.problems.append(f"dialog {dialog.message}"))
    yield page
    context.close()


def expect(locator, wait_ms=WAIT_MS):
    """Return playwright's waiting assertion with our limit."""
    playwright.expect.set_options(timeout=wait_ms)
    return playwright.expect(locator)


def press(page, *keys):
    """Press keys once the page hears them."""
    expect(page.locator("html[data-ready]")).to_have_count(1)
    for key in keys:
        page.keyboard.press(key)


def test_a_live_run_appears_and_moves(page, tmp_path):
    (tmp_path / "runs").mkdir()
    with serve_viewer(tmp_path / "runs", tmp_path / "cache", ScriptedCast()) as server:
        page.goto(server.address)
        expect(page.get_by_text("No runs in runs yet")).to_be_visible()
        run = make_run(tmp_path / "runs" / "live", steps=2)
        page.get_by_role("link", name="live").click()
        expect(page.get_by_text("2 of 10")).to_be_visible()
        before = page.locator("figure[data-name=reward] polyline").first.get_attribute("points")
        write_step(run, 3, reward_mean=2.0)
        expect(page.get_by_text("3 of 10")).to_be_visible()
        assert page.locator("figure[data-name=reward] polyline").first.get_attribute("points") != before
        chart = page.locator("figure[data-name=reward]")
        chart.focus()
        chart.press("ArrowLeft")
        expect(chart.locator(".readout")).to_contain_text("step 2")
    assert page.problems == []


def test_filter_open_and_compare(page, tmp_path):
    make_run(tmp_path / "runs" / "one")
    make_run(tmp_path / "runs" / "two", seed=1)
    with serve_viewer(tmp_path / "runs", tmp_path / "cache", ScriptedCast()) as server:
        page.goto(f"{server.address}/runs/one/negotiations")
        press(page, "/")
        page.keyboard.type("accept half")
        page.get_by_label("Ending").select_option("agreed")
        page.get_by_label("Reward from").fill("1.5")
        page.get_by_role("button", name="Filter").click()
        expect(page.get_by_text("6 negotiations")).to_be_visible()
        press(page, "j", "Enter")
        expect(page.get_by_role("heading", name="What they said")).to_be_visible()
        press(page, "g")
        expect(page.locator("article")).to_have_count(4)
        page.goto(server.address)
        for name in ("one", "two"):
            page.get_by_label(f"Compare {name}").check()
        page.get_by_role("button", name="Compare the marked runs").click()
        expect(page.get_by_role("rowheader", name="seed")).to_be_visible()
    assert page.problems == []


def test_a_whole_negotiation_is_played(page, tmp_path):
    make_run(tmp_path / "runs" / "one", steps=1)
    decisions = iter([False, True])
    cast = ScriptedCast(decisions=lambda ending: next(decisions))
    with serve_viewer(tmp_path / "runs", tmp_path / "cache", cast) as server:
        page.goto(f"{server.address}/play")
        page.get_by_label("Dilemma").fill("Who waters the plants?")
        page.get_by_label("Seat A").select_option("you")
        page.get_by_label("Seat B").select_option("one")
        page.get_by_role("button", name="Begin").click()
        expect(page.locator("#moves[data-ready]")).to_have_count(1)
        for number in (1, 2):
            send = page.get_by_role("button", name="Send")
            expect(send).to_be_enabled()
            page.get_by_label("Your message as A").fill(f"Offer {number}.")
            page.keyboard.press("Control+Enter")
            expect(page.locator("#moves .text", has_text=f"Offer {number}.")).to_be_visible()
        expect(page.get_by_role("status")).to_have_text("It is over.")
        expect(page.locator(".answer .text", has_text="I propose as summary.")).to_be_visible()
        expect(page.get_by_text("score 4.00")).to_be_visible()
        assert page.locator("#moves > .move").count() == 7
        assert page.get_by_role("button", name="Send").count() == 0
    assert page.problems == []


@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_a_whole_negotiation_is_played_against_the_embedded_model(page, tmp_path):
    make_run(tmp_path / "runs" / "one", steps=1)
    sampling = Sampling(0.7, 0.95, 24)
    rules = NegotiationConfig(dialogue=sampling, completion=sampling)
    config = ViewConfig(negotiation=rules, threads=1)
    cast = LocalCast(Library(tmp_path / "runs"), config)
    # Every state of the message that is being written.
    page.add_init_script(
        """window.drafts = []; new MutationObserver(() => {
          const draft = document.getElementById("draft");
          if (draft && !draft.hidden) window.drafts.push(draft.querySelector(".text").textContent);
        }).observe(document, { subtree: true, childList: true, characterData: true, attributes: true });"""
    )
    with serve_viewer(tmp_path / "runs", tmp_path / "cache", cast, negotiation=rules) as server:
        page.goto(f"{server.address}/play")
        page.get_by_label("Dilemma").fill("Two neighbours share one well. Who draws water first in a dry summer?")
        page.get_by_label("Seat A").select_option("you")
        page.get_by_label("Seat B").select_option("adapted")
        page.get_by_label("Rounds").fill("1")
        page.get_by_role("button", name="Begin").click()
        expect(page.locator("#moves[data-ready]")).to_have_count(1)
        expect(page.get_by_role("button", name="Send"), 120_000).to_be_enabled()
        page.get_by_label("Your message as A").fill("You draw on odd days, I draw on even days.")
        page.keyboard.press("Control+Enter")
        expect(page.get_by_role("status"), 120_000).to_have_text("It is over.")
        # Two messages, the judge's word, the joint answer with its score.
        expect(page.locator("#moves > .move")).to_have_count(4)
        answer = page.locator("#moves .answer")
        assert answer.locator(".text").inner_text().strip()
        assert re.search(r"score \d\.\d\d ± \d\.\d\d by the training judge", answer.inner_text())
        spoken = page.locator("#moves .bubble.seat-b .text").inner_text()
        drafts = [text for text in page.evaluate("window.drafts") if text and spoken.startswith(text)]
        assert len(set(drafts)) > 1
        expect(page.locator("#draft")).to_be_hidden()
    assert page.problems == []


def test_twenty_pairs_are_rated_by_keys_and_the_agreement_is_seen(page, tmp_path):
    add_evaluation(make_run(tmp_path / "runs" / "one", steps=1), count=20)
    with serve_viewer(tmp_path / "runs", tmp_path / "cache", ScriptedCast()) as server:
        page.goto(f"{server.address}/rate")
        page.get_by_label("From").select_option("before@one")
        page.get_by_label("against").select_option("after@one")
        page.get_by_role("button", name="Draw items").click()
        for rater in ("Ada", "Bo"):
            page.goto(f"{server.address}/rate")
            page.get_by_label("Your name").fill(rater)
            page.get_by_role("button", name="Begin" if rater == "Ada" else "Change").click()
            page.get_by_role("link", name="Rate study 1").click()
            for number in range(1, 21):
                expect(page).to_have_title(f"Rate {number} of 20 · comity")
                press(page, "ArrowLeft" if number % 3 else "ArrowRight")
                if number == 3:
                    expect(page).to_have_title("Rate 4 of 20 · comity")
                    press(page, "u")
                    expect(page).to_have_title("Rate 3 of 20 · comity")
                    press(page, "0")
            expect(page.get_by_role("heading", name="All 20 rated")).to_be_visible()
        page.get_by_role("link", name="See the results").click()
        expect(page.get_by_role("rowheader", name="Krippendorff's alpha")).to_be_visible()
        expect(page.get_by_role("rowheader", name="Cohen's kappa, Ada and Bo")).to_be_visible()
        expect(page.get_by_role("rowheader", name="same preference, training judge")).to_be_visible()
    assert page.problems == []


def test_tokens_are_coloured_by_three_figures(page, tmp_path):
    make_run(tmp_path / "runs" / "one", steps=1)
    with serve_viewer(tmp_path / "runs", tmp_path / "cache", ScriptedCast()) as server:
        page.goto(f"{server.address}/runs/one/negotiations/train/1/2")
        token = page.locator(".tokens span").nth(3)  # -2.0 when sampled, -1.0 after the step, advantage +1
        expect(token).to_have_attribute(
            "title", re.compile("−2.00 .* −1.00 .*, \\+1.00 · in the loss, advantage \\+1.00")
        )
        seen = {}
        for shade in ("logprob", "change", "advantage", ""):
            expect(page.locator("body")).to_have_attribute("data-shade", shade)
            seen[shade] = token.evaluate("element => getComputedStyle(element).backgroundColor")
            press(page, "t")
        assert len(set(seen.values())) == 4
        assert seen[""] == "rgba(0, 0, 0, 0)"
        press(page, "t")  # from log-probability, where it began again, to the change
        press(page, "n")
        expect(page.get_by_text("rollout 4")).to_be_visible()
        expect(page.locator("body")).to_have_attribute("data-shade", "change")
    assert page.problems == []


def test_a_hostile_transcript_executes_nothing(page, tmp_path):
    run = make_run(tmp_path / "runs" / "one", steps=0)
    row = negotiation_row(judge_made("x/y", 0, 1.0, (HOSTILE, HOSTILE)), 0.5) | {"reasons": [HOSTILE], HOSTILE: HOSTILE}
    row |= {"dilemma": HOSTILE, "personas": [HOSTILE, HOSTILE], "completion": HOSTILE}
    write_negotiations(run, 1, [row])
    for side in ("before", "after"):
        write_rows(run / "evaluation" / f"{side}.jsonl", [row])
    paths = ("negotiations?text=window", "negotiations/train/1/0", "pairs", "pair?scenario=x/y&sample=0")
    cast = ScriptedCast(lines=lambda request: HOSTILE)
    with serve_viewer(run.parent, tmp_path / "cache", cast) as server:
        for path in paths:
            page.goto(f"{server.address}/runs/one/{path}")
            assert page.evaluate("window.taken") is None, path
        page.goto(f"{server.address}/play")
        page.get_by_label("Dilemma").fill(HOSTILE)
        page.get_by_label("Seat A").select_option("one")
        page.get_by_label("Seat B").select_option("two")
        page.get_by_role("button", name="Begin").click()
        expect(page.get_by_role("status")).to_have_text("It is over.")
        expect(page.get_by_text("window.taken = 1").first).to_be_visible()
        assert page.evaluate("window.taken") is None
    export_run(run.parent, "one", tmp_path / "out")
    for name in ("step-000001.html", "pairs.html"):
        page.goto((tmp_path / "out" / name).as_uri())
        page.locator("summary").first.click()
        assert page.evaluate("window.taken") is None
    assert page.problems == []


def test_an_export_opens_from_disk_with_its_styles_and_filter(page, tmp_path):
    add_evaluation(make_run(tmp_path / "runs" / "one"))
    index = export_run(tmp_path / "runs", "one", tmp_path / "out")
    page.goto(index.as_uri())
    assert page.locator(".top").evaluate("element => getComputedStyle(element).position") == "sticky"
    page.get_by_role("link", name="Negotiations").click()
    page.get_by_role("link", name="step 2").click()
    expect(page).to_have_title("step 2 of one · comity")
    press(page, "/")
    page.keyboard.type("pair-0 #3")
    expect(page.locator(".one:visible")).to_have_count(1)
    assert page.problems == []


PAGES = (
    "/", "/runs/one", "/runs/one/negotiations", "/runs/one/negotiations/train/1/1", "/runs/one/config?against=two",
    "/runs/one/group?part=train&step=1&scenario=day-001/pair-0", "/runs/one/pairs", "/compare?run=one&run=two",
    "/runs/one/pair?scenario=test-2/pair-0&sample=0", "/play", "/rate", "/rate/1", "/rate/1/results",
)  # fmt: skip


@pytest.mark.parametrize(("scheme", "width"), [("light", 1280), ("dark", 390)])
def test_axe_finds_no_violation(browser, tmp_path, scheme, width):
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="axe is not installed: make setup")
    for name in ("one", "two"):
        add_evaluation(make_run(tmp_path / "runs" / name), count=4)
    context = browser.new_context(color_scheme=scheme, viewport={"width": width, "height": 844})
    page = context.new_page()
    with serve_viewer(tmp_path / "runs", tmp_path / "cache", ScriptedCast()) as server:
        page.goto(f"{server.address}/rate")
        page.get_by_label("Your name").fill("Ada")
        page.get_by_role("button", name="Begin").click()
        page.get_by_label("Question").select_option("agency")
        page.get_by_label("Items").fill("4")
        page.get_by_role("button", name="Draw items").click()
        expect(page).to_have_title("Rate 1 of 4 · comity")
        press(page, "3")
        expect(page).to_have_title("Rate 2 of 4 · comity")
        page.goto(f"{server.address}/play")
        page.get_by_role("button", name="Begin").click()
        expect(page.get_by_role("status")).to_have_text("Your turn, as A.")
        games = [page.url.removeprefix(server.address)]
        for path in (*PAGES, *games):
            page.goto(server.address + path)
            found = axe.Axe().run(page)
            assert found.violations_count == 0, f"{path}: {found.generate_report()}"
            wide = page.evaluate("document.documentElement.scrollWidth > document.documentElement.clientWidth")
            assert not wide, f"{path} is wider than the window"
        page.goto(f"{server.address}/runs/one/negotiations/train/1/2")
        for shade in ("change", "advantage", ""):
            page.get_by_label("Colour of tokens").select_option(shade)
            found = axe.Axe().run(page)
            assert found.violations_count == 0, f"tokens by {shade}: {found.generate_report()}"
    context.close()
