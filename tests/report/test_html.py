import base64
import io
import re
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image

from mien.faces import AGE_BIN_NAMES
from mien.report import figures
from mien.report.evaluation import evaluation_page
from mien.report.explain import only_ages
from mien.report.html import Card, Page, Picture
from mien.report.inspection import inspection_page

VOID = {"meta", "img", "input", "br", "link"}
EVIL = "<script>alert(\"x\")</script> & 'quotes'"


class Checker(HTMLParser):
    """Tags closed in order, what is referred to, and the text."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.links: list[str] = []
        self.anchors: set[str] = set()
        self.tags: set[str] = set()
        self.words: list[str] = []

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        if tag not in VOID:
            self.open.append(tag)
        for name, value in attrs:
            if name in ("src", "href", "srcset", "poster", "data", "action"):
                self.links.append(value)
            if name == "id":
                assert value not in self.anchors
                self.anchors.add(value)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] != "style":
            self.words.append(data)

    @property
    def text(self) -> str:
        return re.sub(r"\s+", " ", "".join(self.words))


def check(page: str) -> Checker:
    """A well-formed page that fetches nothing and runs nothing."""
    checker = Checker()
    checker.feed(page)
    checker.close()
    assert checker.open == []
    assert not checker.tags & {"script", "link", "iframe", "object", "embed"}
    for link in checker.links:
        assert link.startswith(("data:image/png;base64,", "data:image/jpeg;base64,")) or (
            link.startswith("#") and link[1:] in checker.anchors
        )
    assert not re.search(r"https?://|url\(|@import|javascript:", page, re.IGNORECASE)
    assert not re.search(r"<[^>]* on[a-z]+=", page)
    return checker


# Building blocks


def test_page_escapes_everything(tmp_path):
    page = Page(EVIL, EVIL)
    page.heading(EVIL)
    page.text(EVIL)
    page.note(EVIL)
    page.points([EVIL])
    page.cards([Card(EVIL, EVIL, EVIL)])
    page.facts({EVIL: EVIL})
    page.table([EVIL, "n"], [[EVIL, 1]], caption=EVIL)
    page.figure(figures.cumulative_score([0.1] * 16), caption=EVIL)
    page.images([Picture(None, EVIL, [EVIL], [EVIL])])
    with page.details(EVIL):
        page.text("inside")
    checker = check(page.html())
    assert checker.text.count('alert("x")') == 20
    page.save(tmp_path / "new" / "page.html")
    assert (tmp_path / "new" / "page.html").read_text(encoding="utf-8") == page.html()


def test_bold_is_bold_and_nothing_else_is():
    page = Page("t")
    page.text("**4.20** < 5 * 2 ** x", "`mien <x>`")
    assert "<p><code>mien &lt;x&gt;</code></p>" in page.html()
    assert "<strong>4.20</strong> &lt; 5 * 2 ** x" in page.html()


def test_cells_are_written_alike():
    page = Page("t")
    page.table(["group", "a", "b", "c", "d"], [["x", 12345, float("nan"), None, "4.20 [4.08, 4.33]"]])
    html = page.html()
    assert "<td>12,345</td><td>–</td><td>–</td>" in html
    assert "x 12,345" in check(html.replace("</td>", " </td>")).text
    assert "4.20 [4.08, 4.33]" in check(html).text


def test_pictures_are_small_jpegs(pictures):
    page = Page("t")
    page.images([Picture(np.zeros((3, 900, 600), np.uint8), "large"), Picture(pictures[0], "small")])
    found = [link for link in check(page.html()).links if link.startswith("data:image/jpeg")]
    sizes = [Image.open(io.BytesIO(base64.b64decode(link.split(",")[1]))).size for link in found]
    assert sizes == [(149, 224), (32, 40)]


def test_contents_only_for_pages_that_need_them():
    page = Page("t")
    page.heading("one")
    assert "<nav" not in page.html()
    page.heading("two")
    page.heading("three")
    assert page.html().count('href="#') == 3


# The page of an evaluation


def pages_figures(evaluation):
    metrics = evaluation.metrics
    return {
        "error_analysis": figures.error_analysis(metrics["age"], evaluation.truth, evaluation.prediction),
        "coverage": figures.coverage(metrics["age"]),
        "confusion_race": figures.confusion(metrics["race"]["confusion"], metrics["race"]["classes"]),
        "surprise": figures.cumulative_score(metrics["age"]["cs"]),
    }


def test_evaluation_page_tells_everything(evaluation, pictures):
    worst = [
        {
            "image": pictures[0],
            "truth": 3.0,
            "prediction": 41.2,
            "low": 30.0,
            "high": 52.0,
            "tags": ["blur"],
            "path": "a/<i>.jpg",
        },
        {"image": None, "truth": 70.0, "prediction": 35.0, "low": float("nan"), "high": None},
    ]
    facts = {"Model": f"runs/{EVIL}", "Faces": "utk, val"}
    page = evaluation_page(evaluation.metrics, pages_figures(evaluation), worst, facts, ["research only"])
    checker = check(page)
    age, race = evaluation.metrics["age"], evaluation.metrics["race"]

    def written(estimate, factor=1, digits=2, unit=""):
        value, low, high = (f"{estimate[key] * factor:.{digits}f}" for key in ("value", "low", "high"))
        return f"{value}{unit} [{low}, {high}]".replace("-", "−")

    assert written(age["mae"]) in checker.text
    assert written(age["macro_mae"]) in checker.text
    assert f"{age['constant']['mae']['value']:.2f}" in checker.text
    assert written(race["accuracy"], 100, 1, " %") in checker.text
    for group in age["groups"]["race"].values():
        assert written(group["mae"]) in checker.text
    assert written(age["gaps"]["race"]["age_standardised"]) in checker.text
    # Ages are made equal within those that all groups have enough faces of; a figure of few ages says which.
    assert "with ages made equal (20-39 only) 0.70" in checker.text
    assert "with ages made equal 0.22" in checker.text
    for words in ("predicted 41", "error +38", "interval 30 to 52", "blur", "a/<i>.jpg", "research only"):
        assert words in checker.text
    assert sum(link.startswith("data:image/png") for link in checker.links) == 4
    assert "too few to say" in checker.text
    assert "(may be chance)" in checker.text
    assert "less often than 85 % for age 0-9" in checker.text


@pytest.mark.parametrize(
    "metrics",
    [
        {},
        {"age": {"n": 0}, "gender": {"n": 0, "classes": ["Male", "Female"]}, "about": {"model": "x"}},
        {"age": {"mae": {"value": 3.0, "low": None, "high": None, "n": 1}, "groups": {}, "gaps": {}}},
        {"gender": {"classes": ["Male", "Female"], "accuracy": {"value": 0.5, "n": 2}, "groups": None}},
        {
            "age": {
                "mae": {"value": 3.0, "low": float("nan"), "high": float("nan"), "n": 40},
                "groups": {"gender": {"Male": {"n": 3, "suppressed": True}}},
                "interval_labels": {"n": 7, "inside": {"value": 0.5, "low": 0.1, "high": 0.9, "n": 7}},
            }
        },
    ],
)
def test_evaluation_page_of_nearly_nothing(metrics):
    checker = check(evaluation_page(metrics, {}))
    assert "nan" not in checker.text.lower().split()
    assert "None" not in checker.text.split()


@pytest.mark.parametrize(
    ("bins", "told"),
    [
        (list(AGE_BIN_NAMES), ""),
        (None, ""),
        (["70+"], " (70+ only)"),
        (["60-69", "70+"], " (60+ only)"),
        (["0-9", "20-29", "30-39", "40-49"], " (0-9, 20-49 only)"),
    ],
)
def test_ages_made_equal_say_which_ages_they_rest_on(bins, told):
    assert only_ages({"bins": bins}) == told


# The page of an inspection


def test_inspection_page(pictures):
    findings = {
        "faces": 4,
        "counts": {
            "age": {"exact": 3, "interval": 1, "missing": 0},
            "gender": {"Male": 3, "Female": 1, "missing": 0},
            "race": {"White": 0, "missing": 4},
            "source": {},
        },
        "age": {"lowest": 3.0, "highest": 90.0, "median": 31.0, "mean": 38.25, "bins": {}},
        "imbalance": {
            "gender": {
                "ratio": 3.0,
                "classes": {
                    "Male": {"count": 3.0, "share": 0.75, "weight": 2 / 3},
                    "Female": {"count": 0.0, "share": 0.0, "weight": None},
                },
            }
        },
        "duplicates": {
            "groups": [["a.jpg", "b.jpg"], ["c.jpg", "d.jpg"]],
            "faces": 4,
            "identical": 1,
            "conflicting": [{"paths": ["a.jpg", "b.jpg"]}, {"paths": ["c.jpg", "d.jpg"]}],
            "disagreements": {"age": 2, "age_over_5": 1, "gender": 1},
            "across_splits": [{"paths": ["a.jpg", "<b>.jpg"], "splits": ["train", "val"]}],
        },
        "unreadable": [{"path": f"{n}.jpg", "reason": EVIL} for n in range(300)],
    }
    row = [Picture(pictures[0], "10, Male", ["a.jpg"], ["age"]), Picture(None, "31, Male", ["b.jpg"])]
    nan = np.full(4, np.nan)
    panels = {"dataset_analysis": figures.dataset_analysis(nan, nan, ["Male"] * 4, [-1] * 4)}
    checker = check(inspection_page(findings, panels, [row], {"Faces": "utk"}))
    for words in (
        "Inspection of utk",
        "10, Male",
        "31, Male",
        "0.67",
        "75.0 %",
        "Ages run from 3 to 90 years, median 31",
        "(age: 2, age by more than 5 years: 1, gender: 1)",
        "The worst 1 of 2",
        "train, vala.jpg, <b>.jpg",
        "The first 200 of 300",
    ):
        assert words in checker.text
    assert "199.jpg" in checker.text
    assert "200.jpg" not in checker.text


@pytest.mark.parametrize(
    "findings",
    [
        {},
        {"faces": 0, "counts": {}, "age": None, "imbalance": {}, "unreadable": [], "duplicates": None},
        {"faces": 1, "duplicates": {"groups": [], "conflicting": [], "across_splits": []}},
        {"imbalance": {"race": {"ratio": None, "classes": {"White": {"count": 0.0, "share": None, "weight": None}}}}},
    ],
)
def test_inspection_page_of_nearly_nothing(findings):
    check(inspection_page(findings, {}))
