"""The report in a real browser: plots, tokens, keys, search, colors, phones, hostile text."""

import math
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import report_dataset
from playwright.sync_api import Browser, Page, expect, sync_playwright
from report_dataset import HOSTILE

from logitcask.schemas.format.reader import ShardReader
from logitcask.schemas.inspection.window import dataset_vocabulary
from logitcask.schemas.report.gathering import SampleSize, gather
from logitcask.schemas.report.page import render_page
from logitcask.schemas.report.windows import StudentRows

pytestmark = pytest.mark.slow
CHROMIUM = os.environ.get("CHROMIUM") or shutil.which("chromium")
# The row of window 0 that the tests use: it has a label and a head, and is not the first of its part.
ROW = 10


def student(windows, targets) -> StudentRows:
    rows = np.where(targets.has_target(), np.linspace(0, 9, windows.num_positions), np.nan)
    return StudentRows(kl_nats=rows, loss_nats=rows, probabilities=np.exp(targets.head_log_probs) / 2)


@pytest.fixture(scope="module")
def snapshot(tmp_path_factory):
    return report_dataset.write_dataset(str(tmp_path_factory.mktemp("browser") / "cask"))


@pytest.fixture(scope="module")
def stored(snapshot):
    """The shard that contains window 0."""
    with ShardReader(snapshot.shard_url(snapshot.shards()[0])) as reader:
        return reader.read()


@pytest.fixture(scope="module")
def file(snapshot, tmp_path_factory) -> Path:
    run = tmp_path_factory.mktemp("run")
    lines = [f'{{"step": {step}, "loss": {9 / step}, "learning_rate": {1 / step}}}' for step in range(1, 9)]
    (run / "metrics.jsonl").write_text("\n".join(lines))
    size = SampleSize(num_windows=12, num_tokens=12 * 48)
    path = run / "report.html"
    path.write_bytes(render_page(gather(snapshot, dataset_vocabulary(snapshot), size, run=run, student=student)))
    return path


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    if CHROMIUM is None:
        pytest.skip("no chromium: `apt-get install chromium`, or name one in CHROMIUM")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def open_page(browser, file):
    """Opens the report; in the end the browser's console must be empty, and no network request made."""
    contexts, complaints, requests = [], [], []

    def opened(**settings) -> Page:
        context = browser.new_context(**({"viewport": {"width": 1280, "height": 900}} | settings))
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda message: complaints.append(message.text))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("dialog", lambda dialog: complaints.append(dialog.message))
        page.on("request", lambda request: requests.append(request.url))
        page.goto(file.as_uri())
        expect(page.locator("html[data-ready]")).to_be_attached()
        return page

    yield opened
    for context in contexts:
        context.close()
    assert complaints == []
    assert {url for url in requests if not url.startswith("data:")} <= {file.as_uri()}


@pytest.fixture
def page(open_page) -> Page:
    return open_page()


def cell(page: Page, row: int):
    """The token of a row of the window shown, if no part ends before it."""
    return page.locator(".token").nth(row)


def distribution(page: Page) -> dict[int, float]:
    """Ids and probabilities that the panel lists."""
    rows = page.locator("#panel tr[data-id]")
    return {int(row.get_attribute("data-id")): float(row.get_attribute("data-p")) for row in rows.all()}


def expected(stored, row: int) -> dict[int, float]:
    entries = slice(*stored.targets.head_offsets[row : row + 2])
    head = zip(-stored.targets.head_log_probs[entries], stored.targets.head_ids[entries].tolist(), strict=True)
    return {token_id: math.exp(-cost) for cost, token_id in sorted(head)[:8]}


def test_every_plot_and_table_is_drawn_and_named(page):
    expect(page.locator("h1")).to_contain_text("cask")
    titles = page.locator(".plot h3").all_inner_texts()
    assert titles[:6] == [
        "Entropy",
        "Teacher loss",
        "Head width",
        "Tail mass",
        "Mass of the k largest ids",
        "Different ids in N draws",
    ]
    assert page.locator("#curves svg path.curve").count() == 2
    assert all(text.strip() for text in page.locator(".plot figcaption .basis").all_inner_texts())
    assert page.locator("svg:not([aria-label])").count() == 0
    assert page.locator("#source-table tbody tr").count() == 2
    assert "NaN" not in page.content().split('type="application/json"')[0]


def test_pointing_at_a_token_shows_the_distribution_that_predicts_it(page, stored):
    cell(page, ROW).hover()
    assert distribution(page) == pytest.approx(expected(stored, ROW - 1), rel=1e-3)
    tail = math.exp(stored.targets.log_tail[ROW - 1])
    (shown,) = [row for row in page.locator("#panel tr").all() if "tail" in row.inner_text()]
    assert float(shown.get_attribute("data-p")) == pytest.approx(tail, rel=1e-3)
    expect(page.locator("#panel .facts")).to_contain_text(f"{stored.targets.entropy[ROW - 1]:.2f} nats")
    expect(page.locator("#panel .is-actual")).to_contain_text(f"word{stored.windows.token[ROW]}")


def test_the_masses_in_the_panel_sum_to_one(page):
    for row in (ROW, ROW + 1, ROW + 2):
        cell(page, row).hover()
        rows = page.locator("#panel tr[data-p]").all()
        masses = [float(one.get_attribute("data-p")) for one in rows if "not among these" not in one.inner_text()]
        assert sum(masses) == pytest.approx(1, abs=2e-3)


def test_a_click_keeps_a_token_and_escape_releases_it(page, stored):
    cell(page, ROW).click()
    cell(page, ROW + 3).hover()
    assert distribution(page) == pytest.approx(expected(stored, ROW - 1), rel=1e-3)
    page.keyboard.press("Escape")
    expect(page.locator("#panel .hint")).to_be_visible()
    cell(page, ROW + 4).hover()
    assert distribution(page) == pytest.approx(expected(stored, ROW + 3), rel=1e-3)


def test_arrow_keys_move_from_token_to_token(page, stored):
    page.locator("#query").focus()
    page.keyboard.press("Tab")
    expect(cell(page, 0)).to_be_focused()
    for _ in range(ROW):
        page.keyboard.press("ArrowRight")
    expect(cell(page, ROW)).to_be_focused()
    assert distribution(page) == pytest.approx(expected(stored, ROW - 1), rel=1e-3)
    before = cell(page, ROW).bounding_box()
    page.keyboard.press("ArrowDown")
    after = page.locator(".token:focus").bounding_box()
    assert before["y"] + 4 < after["y"] < before["y"] + 60
    page.keyboard.press("ArrowUp")
    page.keyboard.press("Home")
    expect(cell(page, 0)).to_be_focused()
    assert page.locator('.token[tabindex="0"]').count() == 1


def test_the_target_after_the_last_token_of_a_part_is_shown(page, stored):
    cell(page, 24).hover()
    expect(cell(page, 24)).to_have_text("⋯")
    assert distribution(page) == pytest.approx(expected(stored, 23), rel=1e-3)


def test_tokens_are_shaded_by_the_chosen_measure(page):
    levels = {}
    for name in ("Teacher loss", "Entropy", "Student’s error"):
        page.get_by_text(name, exact=True).first.click()
        levels[name] = page.eval_on_selector_all(".token", "all => all.map(one => Number(one.dataset.level))")
    assert len({tuple(found) for found in levels.values()}) == 3
    # The student of this test is worse with every row: within a part no token is lighter than the one before.
    rising = levels["Student’s error"][1:24]
    assert rising == sorted(rising)
    assert rising[-1] > rising[0]


def test_the_darkest_tokens_reach_the_maximum_of_the_legend(page):
    darkest = """() => reader.cells.flatMap((cell, i) => cell.target < 0 ? [] : [[
      Number(reader.elements[i].dataset.level), REPORT.windows[reader.window].loss[cell.target], reader.shade.max
    ]])"""
    found = [(level, value >= most) for level, value, most in page.evaluate(darkest) if value is not None]
    assert {level for level, _ in found} >= {0, 1, 8}
    assert all((level == 8) == reaches for level, reaches in found)


def test_a_window_opens_at_its_beginning(open_page):
    page = open_page(viewport={"width": 900, "height": 300})
    page.locator("#text").evaluate("text => { text.scrollTop = 200 }")
    assert page.locator("#text").evaluate("text => text.scrollTop") > 0
    page.locator("#window").select_option("2")
    assert page.locator("#text").evaluate("text => text.scrollTop") == 0


def test_search_finds_words_and_opens_their_window(page, stored):
    block = stored.windows
    rows = slice(block.window_offsets[2], block.window_offsets[3])
    wanted = " ".join(f"WORD{token}" for token in block.token[rows][5:8])
    page.locator("#query").fill(wanted)
    expect(page.locator("#hits [role=status]")).to_have_text("1 in the sampled text")
    page.locator("#hits button").click()
    expect(page.locator("#window")).to_have_value("2")
    assert page.locator(".hit-token").count() >= 3
    expect(page.locator(".token:focus")).to_contain_text(f"word{block.token[rows][5]}")


def test_the_colors_follow_the_system_and_the_theme_button(open_page):
    def ground(page: Page) -> str:
        return page.evaluate("getComputedStyle(document.body).backgroundColor")

    light, dark = open_page(color_scheme="light"), open_page(color_scheme="dark")
    grounds = ground(light), ground(dark)
    assert grounds[0] != grounds[1]
    for expected_ground in (grounds[0], grounds[1], grounds[0]):
        light.locator("#theme").click()
        if light.locator("#theme").inner_text().endswith("auto"):
            assert ground(light) == grounds[0]
        else:
            assert ground(light) == expected_ground


CONTRAST = """() => {
  const canvas = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
  const luminance = (color) => {
    canvas.fillStyle = color; canvas.fillRect(0, 0, 1, 1);
    const [r, g, b] = [...canvas.getImageData(0, 0, 1, 1).data].map((c) => c / 255)
      .map((c) => (c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const ratio = (a, b) => (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
  const ground = (element) => {
    for (let one = element; one; one = one.parentElement) {
      const color = getComputedStyle(one).backgroundColor;
      if (color !== "rgba(0, 0, 0, 0)") return color;
    }
  };
  const seen = [...document.querySelectorAll(".token, .basis, dt, small, .readout, th, .number, h1, .badge, .part")];
  return Math.min(...seen.filter((e) => e.checkVisibility())
    .map((e) => ratio(luminance(getComputedStyle(e).color), luminance(ground(e)))));
}"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_has_the_contrast_that_wcag_requires(open_page, scheme):
    page = open_page(color_scheme=scheme)
    cell(page, ROW).click()
    for name in ("Teacher loss", "Entropy", "Student’s error"):
        page.get_by_text(name, exact=True).first.click()
        assert page.evaluate(CONTRAST) >= 4.5  # WCAG 2.2, 1.4.3


@pytest.mark.parametrize("width", [320, 360])
def test_a_phone_scrolls_only_vertically_and_a_tap_opens_a_sheet(open_page, stored, width):
    page = open_page(viewport={"width": width, "height": 720}, has_touch=True, is_mobile=True)
    assert page.evaluate("document.documentElement.scrollWidth") == width
    cell(page, ROW).tap()
    assert distribution(page) == pytest.approx(expected(stored, ROW - 1), rel=1e-3)
    sheet = page.locator("#panel").bounding_box()
    assert sheet["width"] == width
    assert cell(page, ROW).bounding_box()["y"] < sheet["y"]
    assert page.evaluate("document.documentElement.scrollWidth") == width
    page.get_by_label("Close").tap()
    expect(page.locator("#panel")).to_be_hidden()


def test_pointer_and_keys_read_the_values_of_a_plot(page):
    plot = page.locator(".plot").first
    summary = plot.locator(".readout").inner_text()
    plot.locator("svg").hover()
    assert "of rows" in plot.locator(".readout").inner_text()
    page.mouse.move(0, 0)
    assert plot.locator(".readout").inner_text() == summary
    plot.locator("svg").focus()
    page.keyboard.press("ArrowRight")
    first = plot.locator(".readout").inner_text()
    page.keyboard.press("ArrowRight")
    assert first.startswith("0.00–") or "nats" in first
    assert plot.locator(".readout").inner_text() != first


def test_a_tapped_plot_keeps_showing_the_tapped_value(open_page):
    page = open_page(viewport={"width": 390, "height": 720}, has_touch=True, is_mobile=True)
    plot = page.locator(".plot").first
    plot.locator("svg").tap()
    assert "of rows" in plot.locator(".readout").inner_text()


def test_bars_of_head_widths_cover_the_widths_that_occur(page, snapshot):
    plot = page.locator(".plot", has=page.get_by_text("Head width", exact=True))
    plot.locator("svg").focus()
    widths = snapshot.total().statistics.head_widths
    for key, width in (("Home", min(1, *widths)), ("End", max(widths))):
        page.keyboard.press(key)
        label = plot.locator(".readout").inner_text().split(" ids")[0]
        assert int(label.split("–")[0 if key == "Home" else -1]) == width


def test_a_click_on_a_column_sorts_the_sources(page):
    page.locator("#source-table th button").first.click()
    assert page.locator("#source-table tbody th").all_inner_texts() == ["held-out", "train"]
    page.locator("#source-table th button").first.click()
    assert page.locator("#source-table tbody th").all_inner_texts() == ["train", "held-out"]


def test_hostile_text_stays_text(page):
    """In a document, in its id, and in search results: no image, no dialog, no further script."""
    expect(cell(page, 1)).to_contain_text(HOSTILE)
    expect(page.locator(".part").first).to_contain_text(HOSTILE)
    page.locator("#query").fill("onerror")
    expect(page.locator("#hits mark").first).to_contain_text(HOSTILE)
    cell(page, 1).hover()
    expect(page.locator("#panel .panel-head")).to_contain_text(HOSTILE)
    assert page.locator("img, iframe, object").count() == 0
    assert page.locator("script").count() == 2
    expect(cell(page, 5)).to_have_text("\\u202e")
    expect(cell(page, 3)).to_have_text("é")


def test_a_printed_page_has_no_controls(page):
    page.emulate_media(media="print")
    for selector in (".bar", ".controls", "#panel"):
        expect(page.locator(selector).first).to_be_hidden()
    expect(page.locator("#text")).to_be_visible()
