"""The page in a headless browser: nothing is fetched, the slider shows what was recorded, tables sort and filter.

Skipped where there is no Chromium or Chrome; a failure there under CI, so that it cannot pass unseen.
"""

import os
import shutil
from pathlib import Path

import pytest
from trace_runs import CORRECTIONS, LASTS, NASTY

from analysis.report import Report, report
from analysis.summary import select, summarise
from corrector.records import read_rows

REAL = Path(__file__).parents[3] / "figures" / "runs" / "fig8-dialogue-0"
NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
FLAGS = """--no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking
--disable-component-update --disable-sync""".split()


@pytest.fixture(scope="session")
def browser():
    found = next(filter(None, map(shutil.which, NAMES)), None)
    if not found:
        why = f"no browser: none of {', '.join(NAMES)} is on the path"
        pytest.fail(why) if os.environ.get("CI") == "true" else pytest.skip(why)
    sync_api = pytest.importorskip("playwright.sync_api")
    with sync_api.sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=found, args=FLAGS)
        yield opened
        opened.close()


@pytest.fixture(scope="session")
def page_files(traced_run, tmp_path_factory):
    """A page of a tiny run with projections, and one of it and a shipped run of thousands of rows; each made once."""
    folder, made = tmp_path_factory.mktemp("page"), {}

    def of(which):
        if which not in made:
            runs = (traced_run, REAL) if which == "large" else (traced_run,)
            config = Report(runs, folder / f"{which}.html", traces=3, projections=which != "large")
            made[which] = report(config)
        return made[which]

    return of


@pytest.fixture
def open_page(browser, page_files):
    """`open_page(which, width, scheme)` gives the loaded page; what it logged and asked for is checked at the end."""
    contexts, said = [], []

    def opened(which="tiny", width=1280, scheme="light", fragment=""):
        context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda message: said.append(message.text))
        page.on("pageerror", lambda error: said.append(str(error)))
        page.on("dialog", lambda dialog: said.append(dialog.message))
        url = page_files(which).as_uri()
        page.on("request", lambda request: None if request.url.split("#")[0] == url else said.append(request.url))
        page.goto(url + fragment)
        page.wait_for_selector("#panels .main-svg")
        return page

    yield opened
    for context in contexts:
        context.close()
    assert said == [], "the page logs nothing and asks for nothing but itself"


def metric(page, name):
    return page.locator(f"#metrics tr[data-metric={name}] td.here").inner_text()


def texts(page, selector):
    return page.locator(selector).all_inner_texts()


def definition(page, within, term):
    return page.locator(f"{within} dt:text-is('{term}') + dd").first


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 400])
def test_it_fits_and_is_coloured_for_each_look(open_page, width, scheme):
    page = open_page("tiny", width, scheme)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert page.locator("#panels figure").count() == 5
    ground = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert ground == {"light": "rgb(255, 255, 255)", "dark": "rgb(20, 23, 26)"}[scheme]
    ink = page.evaluate("getComputedStyle(document.querySelector('#panels .xtick text')).fill")
    assert ink == page.evaluate("getComputedStyle(document.body).color")


def test_the_slider_shows_the_recorded_text_metrics_and_answer(open_page, traced_run):
    page = open_page()
    page.select_option("#item", "2")
    page.select_option("#problem", "1")
    slider = page.locator("#coef")
    slider.focus()
    page.keyboard.press("Home")
    rows, loops = read_rows(traced_run, "edits"), read_rows(traced_run, "alignments")
    for coef, direction in ((-1.0, "correction"), (0.0, "none"), (1.0, "correction")):
        at = {"coef": coef, "direction": direction}
        row = next(r for r in rows if r["item"] == 2 and at.items() <= r.items())
        assert definition(page, "#sentence", "correction").inner_text() == row["correction"]
        for name in ("edit_ratio", "distance", "kl"):
            assert float(metric(page, name)) == pytest.approx(row[name], rel=1e-5)
        assert metric(page, "copied") == str(row["copied"]).lower()
        loop = next(r for r in loops if r["problem"] == "p1" and at.items() <= r.items())
        assert definition(page, "#answer", "answer").inner_text() == loop["answer"]
        assert float(page.locator("tr[data-outcome=score] td.here").inner_text()) == loop["outcomes"]["score"]
        assert page.locator("ol.rounds li").count() == len(loop["rounds"])
        assert float(slider.get_attribute("aria-valuetext").split()[1]) == coef
        page.keyboard.press("ArrowRight")


def test_a_diff_shows_both_texts_and_markup_as_text(open_page):
    page = open_page()
    page.select_option("#item", "1")
    page.locator("#coef").fill("2")
    shown = definition(page, "#sentence", "diff")
    correction = CORRECTIONS[1.0].format(NASTY)
    kept = shown.evaluate("e => [...e.childNodes].filter(n => n.nodeName !== 'DEL').map(n => n.textContent).join('')")
    before = shown.evaluate("e => [...e.childNodes].filter(n => n.nodeName !== 'INS').map(n => n.textContent).join('')")
    assert (before, kept) == (NASTY, correction)
    assert page.evaluate("window.owned") is None
    assert page.locator("#sentence script, #rows script, #answer script, #sentence b, td b").count() == 0
    assert any("<script>window.owned" in text for text in texts(page, "#edit-rows td"))


def test_the_strip_stands_in_line_with_the_diff(open_page):
    page = open_page()
    page.select_option("#item", "0")
    page.locator("#coef").fill("2")
    heads = page.locator("table.strip td.token").evaluate_all(
        "es => es.map(e => [e.innerText, e.getBoundingClientRect().x])"
    )
    where = {}
    for text, x in heads:
        where.setdefault(text.strip(), []).append(round(x))
    for word in ("has", "3", "apples"):  # in last and in the correction
        assert where[word][0] == where[word][1]
    rows = page.locator("table.strip th").all_inner_texts()
    assert rows == ["last", "layer 2", "layer 1", "layer 0", "correction", "layer 2", "layer 1", "layer 0"]
    page.locator("#strip .scroll").focus()
    page.keyboard.press("ArrowRight")
    assert page.locator("#strip .readout").inner_text().startswith("last, layer 2, token “ has”")
    page.select_option("#item", "4")
    assert "of the first 3 of 5 items" in page.locator("#strip").inner_text()


def test_filters_and_headings(open_page):
    page = open_page()
    page.fill("#filter-edit-rows", "direction:correction coef>0")
    assert page.locator("#edit-rows [role=status]").inner_text() == "Rows 1 to 5 of 5 of 35 rows"
    head = page.locator("#edit-rows th", has_text="edit_ratio")
    column = head.evaluate("e => e.cellIndex")
    cells = f"#edit-rows tbody tr td:nth-child({column + 1})"
    for sort in ("ascending", "descending"):
        head.locator("button").press("Enter")
        assert head.get_attribute("aria-sort") == sort
        numbers = [float(text) for text in texts(page, cells)]
        assert numbers == sorted(numbers, reverse=sort == "descending") and len(set(numbers)) > 1
    page.fill("#filter-edit-rows", "mia SELLS")
    wanted = 7 * sum(LASTS[i % 4].startswith("Mia") for i in range(5))
    assert page.locator("#edit-rows tbody tr").count() == wanted
    page.fill("#filter-edit-rows", "no such text")
    assert page.locator("#edit-rows [role=status]").inner_text() == "No row of 35"


def test_a_row_opens_its_trace(open_page):
    page = open_page()
    page.fill("#filter-loop-rows", "direction:correction coef:1 problem:p2")
    page.locator("#loop-rows tbody button").press("Enter")
    assert page.locator("#problem").input_value() == "2" and page.locator("#stop").inner_text() == "+1"
    page.fill("#filter-edit-rows", "direction:random-01 coef:-1 item:3")
    page.locator("#edit-rows tbody button").click()
    assert page.locator("#direction").input_value() == "random-01" and page.locator("#item").input_value() == "3"
    assert "not run with random-01" in page.locator("#answer").inner_text()


def test_all_is_reached_by_keyboard_and_has_a_name(open_page):
    page = open_page()
    reached = set()
    for _ in range(120):
        page.keyboard.press("Tab")
        at = page.evaluate("document.activeElement.id || document.activeElement.innerText")
        reached.add(at)
    assert {
        "run",
        "task",
        "direction",
        "coef",
        "item",
        "item-next",
        "problem",
        "filter-edit-rows",
        "edit_ratio",
    } <= reached
    unnamed = """es => es.filter(e => !(e.getAttribute('aria-label') || e.textContent || e.labels?.[0]?.textContent))
        .map(e => e.outerHTML.slice(0, 80))"""
    assert page.locator("button, input, select, [tabindex='0']").evaluate_all(unnamed) == []
    ring = "getComputedStyle(document.activeElement).outlineStyle"
    assert page.evaluate(ring) == "solid"


def test_pointing_at_a_curve_tells_its_row_and_clicking_opens_it(open_page, traced_run):
    page = open_page()
    point = page.locator("[data-panel=errors] .scatterlayer .point").last
    point.scroll_into_view_if_needed()
    box = point.bounding_box()
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    page.wait_for_selector("[data-panel=errors] .hoverlayer text")
    row = select(summarise(traced_run), direction="correction", coef=1.0).iloc[0]
    told = page.locator("[data-panel=errors] .hoverlayer").text_content()
    assert "correction, coef +1" in told and f"missed rewrite {row['missed_rewrite']:.3f}" in told
    page.mouse.down()
    page.mouse.up()
    page.wait_for_function("document.getElementById('stop').textContent === '+1'")


def test_thousands_of_rows_stay_quick_and_runs_can_be_chosen(open_page):
    page = open_page("large")
    page.select_option("#run", "1")
    n = len(read_rows(REAL, "edits"))
    assert n > 5000 and f"edits.jsonl: {n} rows" in page.locator("#footer").inner_text()
    assert page.locator("#edit-rows [role=status]").inner_text() == f"Rows 1 to 100 of {n} rows"
    assert page.locator("#edit-rows tbody tr").count() == 100
    timed = """([id, value]) => { const e = document.getElementById(id), t = performance.now(); e.value = value;
        e.dispatchEvent(new Event('input')); document.body.offsetHeight; return performance.now() - t; }"""
    assert page.evaluate(timed, ["coef", "4"]) < 1000
    assert page.locator("#stop").inner_text() == "+2"
    assert page.evaluate(timed, ["filter-edit-rows", "edit_ratio>0.5 gate"]) < 2000
    assert "60 items of 60 questions" in page.locator("#title").inner_text()
    assert page.locator("#strip").inner_text() == "No projections: they were left out by --no-projections."
