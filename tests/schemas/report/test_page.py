"""The page is one file that carries everything, and from which no text of a corpus can break out."""

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


def test_the_data_comes_back_as_it_was(report, page):
    (data,) = DATA.findall(page)
    assert json.loads(data) == json.loads(json.dumps(report))


def test_no_text_of_the_corpus_is_markup(report, page):
    assert report_dataset.HOSTILE in report["pieces"]["text"]
    assert report_dataset.HOSTILE not in page
    assert "onerror=alert" in page  # it is there, as text
    assert "<img" not in page
    assert page.count("</script>") == 2


@pytest.mark.parametrize("text", ["</script>", "<!--", "]]>", "&lt;", "\u2028\u2029", "\x00\x1f", "{{script}}"])
def test_whatever_is_embedded_comes_back_and_holds_no_markup(text):
    embedded = embed_json({text: [text]})
    assert not set("<>&\u2028\u2029") & set(embedded)
    assert json.loads(embedded) == {text: [text]}


def test_a_lone_surrogate_does_not_stop_the_page(report):
    render_page({**report, "scheme_words": "\ud800"})


def test_the_policy_allows_this_style_and_this_script_and_nothing_else(page):
    (policy,) = re.findall(r'<meta http-equiv="Content-Security-Policy" content="([^"]*)">', page)
    (style,) = re.findall(r"<style>(.*?)</style>", page, re.DOTALL)
    (script,) = re.findall(r"<script>(.*?)</script>", page, re.DOTALL)
    hashes = [f"'sha256-{base64.b64encode(hashlib.sha256(one.encode()).digest()).decode()}'" for one in (style, script)]
    assert policy.split("; ")[:3] == ["default-src 'none'", f"style-src {hashes[0]}", f"script-src {hashes[1]}"]
    assert "unsafe" not in policy


def test_nothing_in_the_page_names_another_file(page):
    template = DATA.sub("", page)
    links = re.findall(r"""(?:src|href|url)\s*[=(]\s*["']?([^"')\s>]+)""", template)
    assert {link for link in links if not link.startswith(("#", "data:"))} == set()
    assert re.findall(r"https?://[^\s\"]+", template) == ["http://www.w3.org/2000/svg"]


def test_the_script_never_parses_markup():
    for path in Path(next(iter(report_package.__path__))).glob("*.js"):
        assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(|fetch\(", path.read_text())


def test_a_page_of_the_default_size_stays_under_three_megabytes(report, page):
    """Also with a student, which adds a third; what does not grow with the sample is small."""
    windows_bytes = len(embed_json(report["windows"]).encode())
    assert len(page.encode()) - windows_bytes < 150_000
    assert windows_bytes / report["sample"]["tokens"] * SampleSize().num_tokens < 2_850_000


@pytest.mark.slow
def test_the_wheel_holds_the_page(tmp_path):
    (wheel,) = WheelBuilder(str(ROOT)).build(directory=str(tmp_path), versions=["standard"])
    assets = {path.name for path in (ROOT / "schemas/report").iterdir() if path.suffix in (".html", ".css", ".js")}
    assert {f"logitcask/schemas/report/{name}" for name in assets} <= set(ZipFile(wheel).namelist())
    assert len(assets) == 6
