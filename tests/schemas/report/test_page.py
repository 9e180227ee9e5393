"""The page is one self-contained file, and text of the corpus cannot become markup in it."""

import base64
import hashlib
import json
import re
from pathlib import Path
from zipfile import ZipFile

import numpy as np
import pytest
import report_dataset
from hatchling.builders.wheel import WheelBuilder
from repository import ROOT

from logitcask.schemas import report as report_package
from logitcask.schemas.inspection.window import dataset_vocabulary
from logitcask.schemas.report.gathering import SampleSize, gather
from logitcask.schemas.report.page import embed_json, render_page
from logitcask.schemas.report.windows import StudentRows

DATA = re.compile(r'<script type="application/json" id="data">(.*?)</script>', re.DOTALL)


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    def student(windows, targets):
        rows = np.linspace(0, 9, windows.num_positions)
        return StudentRows(kl_nats=rows, loss_nats=rows, probabilities=np.exp(targets.head_log_probs) / 3)

    snapshot = report_dataset.write_dataset(str(tmp_path_factory.mktemp("page") / "<cask>"))
    return gather(snapshot, dataset_vocabulary(snapshot), SampleSize(), student=student)


@pytest.fixture(scope="module")
def page(report):
    return render_page(report).decode()


def test_the_embedded_data_is_unchanged(report, page):
    (data,) = DATA.findall(page)
    assert json.loads(data) == json.loads(json.dumps(report))


def test_no_text_of_the_corpus_is_markup(report, page):
    assert report_dataset.HOSTILE in report["pieces"]["text"]
    assert report_dataset.HOSTILE not in page
    assert "onerror=alert" in page  # it is there, as text
    assert "<img" not in page
    assert page.count("</script>") == 2


@pytest.mark.parametrize("text", ["</script>", "<!--", "]]>", "&lt;", "\u2028\u2029", "\x00\x1f", "{{script}}"])
def test_embedded_json_is_unchanged_and_contains_no_markup(text):
    embedded = embed_json({text: [text]})
    assert not set("<>&\u2028\u2029") & set(embedded)
    assert json.loads(embedded) == {text: [text]}


def test_a_lone_surrogate_does_not_break_the_page(report):
    render_page({**report, "scheme_words": "\ud800"})


def test_the_policy_allows_only_this_style_and_this_script(page):
    (policy,) = re.findall(r'<meta http-equiv="Content-Security-Policy" content="([^"]*)">', page)
    (style,) = re.findall(r"<style>(.*?)</style>", page, re.DOTALL)
    (script,) = re.findall(r"<script>(.*?)</script>", page, re.DOTALL)
    hashes = [f"'sha256-{base64.b64encode(hashlib.sha256(one.encode()).digest()).decode()}'" for one in (style, script)]
    assert policy.split("; ")[:3] == ["default-src 'none'", f"style-src {hashes[0]}", f"script-src {hashes[1]}"]
    assert "unsafe" not in policy


def test_the_page_refers_to_no_other_file(page):
    template = DATA.sub("", page)
    links = re.findall(r"""(?:src|href|url)\s*[=(]\s*["']?([^"')\s>]+)""", template)
    assert {link for link in links if not link.startswith(("#", "data:"))} == set()
    assert re.findall(r"https?://[^\s\"]+", template) == ["http://www.w3.org/2000/svg"]


def test_the_script_never_parses_markup():
    for path in Path(next(iter(report_package.__path__))).glob("*.js"):
        assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(|fetch\(", path.read_text())


def test_a_page_of_the_default_size_stays_under_three_megabytes(report, page):
    """Even with a student, which adds a third; the parts that do not grow with the sample are small."""
    windows_bytes = len(embed_json(report["windows"]).encode())
    assert len(page.encode()) - windows_bytes < 150_000
    assert windows_bytes / report["sample"]["tokens"] * SampleSize().num_tokens < 2_850_000


@pytest.mark.slow
def test_the_wheel_contains_the_files_of_the_page(tmp_path):
    (wheel,) = WheelBuilder(str(ROOT)).build(directory=str(tmp_path), versions=["standard"])
    assets = {path.name for path in (ROOT / "schemas/report").iterdir() if path.suffix in (".html", ".css", ".js")}
    assert {f"logitcask/schemas/report/{name}" for name in assets} <= set(ZipFile(wheel).namelist())
    assert len(assets) == 6
