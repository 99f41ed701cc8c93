"""A sweep's summary, plots and page, on rows written by hand."""

import json
import re
import shlex
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest
from sweep_rows import HOSTILE, a_failure, a_row, a_transformer

from puppetize import PuppetizeError, cli
from puppetize.sweep.page import make_page
from puppetize.sweep.read_table import read_table
from puppetize.sweep.results import read_coverage, update_coverage, write_results
from puppetize.sweep.row import Row
from puppetize.sweep.summary import (
    coverage,
    families,
    is_cnn,
    lead,
    make_summary,
    measured_cnns,
    quantiles,
)
from puppetize.sweep.table import write_tables

ROOT = Path(__file__).resolve().parents[1]
COMMAND = "puppetize zoo '*'"

ROWS = [
    a_row("small", 2.0, 3.0),
    a_row("middle", 4.0, 8.0, params=5_000_000),
    a_row("large", 8.0, 20.0, "wide", params=40_000_000),
    a_row("small", 6.0, 9.0, zoo="torchvision"),
    a_transformer("vit"),
    a_failure("rcnn"),
    Row("mlp", zoo="timm", family="mlp", status="skipped", reason="no Conv2d", convs=0, params=9),
]

KEPT_EXACTLY = (
    "status", "reason", "family", "params", "sites", "kept_reasons", "original_bytes",
    "original_parts", "stored_parts", "versions",
)  # fmt: skip
VOID = {"meta", "link", "input", "br", "img"}


class Page(HTMLParser):
    """What a browser would see: tags in balance, scripts, references to other files."""

    def __init__(self, page):
        super().__init__()
        self.stack, self.tags, self.scripts, self.references, self.ids = [], [], [], [], []
        self.feed(page)
        self.close()

    def handle_starttag(self, tag, attrs):
        values = dict(attrs)
        self.tags.append(tag)
        if tag == "script":
            self.scripts.append([values, ""])
        if "id" in values:
            self.ids.append(values["id"])
        self.references += [values[k] for k in ("src", "href", "srcset", "action") if k in values]
        if tag not in VOID:
            self.stack.append(tag)

    def handle_endtag(self, tag):
        assert self.stack.pop() == tag

    def handle_data(self, text):
        if self.stack and self.stack[-1] == "script":
            self.scripts[-1][1] += text


def data_of(page):
    (data,) = (text for values, text in Page(page).scripts if values.get("id") == "data")
    return json.loads(data)


def test_quantiles_are_those_of_a_straight_line():
    assert quantiles(range(101)) == (0, 10, 25, 50, 75, 90, 100)
    assert quantiles([3.0]) == (3.0,) * 7
    assert quantiles([1.0, 2.0]) == pytest.approx((1, 1.1, 1.25, 1.5, 1.75, 1.9, 2))
    assert quantiles([]) == ()


def test_cnns_have_more_than_half_of_their_parameters_in_convolutions():
    assert not is_cnn(a_row("half", params=200_000))
    assert is_cnn(a_row("more", params=200_002))
    assert not is_cnn(a_failure("unknown"))
    assert [row.model for row in measured_cnns(ROWS)] == ["small", "middle", "large", "small"]
    assert {name: len(own) for name, own in families(ROWS).items()} == {"net": 3, "wide": 1}


def test_summary_counts_and_quantiles():
    lines = make_summary(ROWS, COMMAND).splitlines()
    assert "| timm | 5 | 4 | 1 | 0 | 3 of 3 |" in lines
    assert "| torchvision | 2 | 1 | 0 | 1 | 1 of 1 |" in lines
    assert "| both | 7 | 5 | 1 | 1 | 4 of 4 |" in lines
    assert "| timm: ratio | 2.0 | 2.4 | 3.0 | 4.0 | 6.0 | 7.2 | 8.0 |" in lines
    assert "| timm: largest feasible | 3.0 | 4.0 | 5.5 | 8.0 | 14.0 | 17.6 | 20.0 |" in lines
    assert "| both: ratio | 2.0 | 2.6 | 3.5 | 5.0 | 6.5 | 7.4 | 8.0 |" in lines
    assert "| generated | 40 | 5 |" in lines
    assert "| kept: depthwise; small | 10 | 5 |" in lines
    assert "| net | 3 | 4.0 | 8.0 |" in lines
    assert "| `torchvision/rcnn` | failed | shapes depend on values |" in lines
    assert "| `timm/mlp` | skipped | no Conv2d |" in lines


def test_summary_names_command_versions_and_settings():
    rows = [a_row("net", options={"config": None, "ratio": 20.0, "num_classes": 10})]
    summary = make_summary(rows, COMMAND)
    assert f"Made by `{COMMAND}` with torch 2.9.0, timm 1.0.31." in summary
    assert "Puppetized with ratio=20, num\\_classes=10: 1 of 1 models (timm)." in summary
    assert data_of(make_page(rows, COMMAND))["flags"] == "--ratio 20 --num-classes 10"


def test_the_first_sentences_give_medians():
    assert lead(ROWS) == (
        "Puppetized with default settings: 5 of 7 models (timm, torchvision). 4 of them are CNNs "
        "(more than half of the parameters in Conv2d), in the median 5.0 times smaller on disk, "
        "and 8.5 times at the largest feasible ratio. Structure only: accuracy was not measured."
    )


def test_summary_of_nothing_measured():
    summary = make_summary([a_failure("rcnn")], COMMAND)
    assert "0 of 1 models" in summary
    assert "CNN (" not in summary
    assert "median" not in summary.split("##")[0]


def test_every_row_of_a_markdown_table_has_its_columns():
    rows = [*ROWS, a_failure(HOSTILE, f"{HOSTILE}\nsecond line"), a_row("x", family=HOSTILE)]
    for text in (make_summary(rows, COMMAND), coverage(rows, COMMAND, "results")):
        width = None
        for line in text.splitlines():
            assert "<script" not in re.sub(r"`[^`]*`", "", re.sub(r"\\.", "", line))
            bars = len(re.findall(r"(?<!\\)\|", line)) if line.startswith("|") else None
            assert width is None or bars in (None, width)
            width = bars


def test_coverage_says_what_is_not_covered():
    rows = [a_failure(f"net{i:02}", f"Net{i}: shapes depend on values") for i in range(10)]
    rows.append(Row("swin", zoo="timm", status="skipped", reason="Swin has no Conv2d layer"))
    rows.append(Row("mvit", zoo="timm", status="skipped", reason="MViT has no Conv2d layer"))
    section = coverage([*ROWS, *rows], COMMAND, "results")
    assert "- 2 skipped: no Conv2d layer: `timm/mvit`, `timm/swin`" in section
    names = ", ".join(f"`torchvision/net{i:02}`" for i in range(8))
    assert f"- 11 failed: shapes depend on values: {names} and 3 more" in section
    assert "- 1 skipped: no Conv2d: `timm/mlp`" in section
    assert "both zoos (torch 2.9.0, timm 1.0.31)" in section


def test_page_is_one_file_of_balanced_html():
    page = Page(make_page(ROWS, COMMAND))
    assert page.stack == []
    assert page.tags[0] == "html"
    assert len(page.ids) == len(set(page.ids))
    assert "iframe" not in page.tags
    assert [r for r in page.references if not r.startswith(("#", "data:"))] == []


def test_page_asks_for_nothing_from_a_network():
    page = make_page(ROWS, COMMAND)
    addresses = set(re.findall(r"(?:https?:)?//[\w.-]+\.\w+[^\s\"']*", page))
    assert addresses == {"http://www.w3.org/2000/svg"}  # the name of SVG's elements
    assert not re.search(r"@import|url\(|\bfetch\(|XMLHttpRequest|import\(|WebSocket", page)


def test_page_holds_the_rows():
    data = data_of(make_page(ROWS, COMMAND))
    rows = [dict(zip(data["columns"], values, strict=True)) for values in data["rows"]]
    assert [row["name"] for row in rows] == [row.full_name for row in ROWS]
    for found, row in zip(rows, ROWS, strict=True):
        assert (found["original"], found["stored"]) == (row.original_bytes, row.stored_bytes)
        assert found["ratio"] == (None if row.ratio is None else pytest.approx(row.ratio, 1e-4))
        assert (found["before"], found["after"]) == (row.original_parts, row.stored_parts)
        assert (found["status"], found["reason"]) == (row.status, row.reason)
    assert data["command"] == COMMAND
    assert data["families"] == ["net", "wide"]


def test_nothing_in_the_rows_leaves_the_data():
    rows = [*ROWS, a_failure(HOSTILE, HOSTILE), a_row(HOSTILE, family="/*{{script}}*/")]
    plain, hostile = make_page(ROWS, COMMAND), make_page(rows, "</script>/*{{data}}*/")
    assert Page(hostile).tags == Page(plain).tags
    names = [values[0] for values in data_of(hostile)["rows"]]
    assert names[-1] == f"timm/{HOSTILE}"
    assert data_of(hostile)["command"] == "</script>/*{{data}}*/"


def test_page_of_numbers_that_json_has_no_words_for():
    data = data_of(make_page([a_row("net", max_ratio=float("inf"))], COMMAND))
    assert data["rows"][0][data["columns"].index("maxRatio")] is None


def test_page_of_no_rows():
    assert data_of(make_page([], COMMAND))["rows"] == []


def test_tables_come_back_as_rows(tmp_path):
    write_tables(tmp_path, ROWS)
    found = {row.full_name: row for row in read_table(tmp_path / "timm.csv")}
    for row in ROWS:
        if row.zoo == "timm":
            back = found[row.full_name]
            for name in KEPT_EXACTLY:
                assert getattr(back, name) == getattr(row, name), name
            assert back.ratio == (None if row.ratio is None else pytest.approx(row.ratio, 1e-5))


@pytest.mark.parametrize("content", [None, "", "model,params\nnet,many\n", "params\n3\n"])
def test_what_is_no_table_is_refused(tmp_path, content):
    path = tmp_path / "timm.csv"
    if content is not None:
        path.write_text(content)
    if content == "":
        assert read_table(path) == []
    else:
        with pytest.raises(PuppetizeError, match=r"timm\.csv: not a table"):
            read_table(path)


@pytest.mark.parametrize("rows", [ROWS, ROWS[-2:], []], ids=["all", "none measured", "none"])
def test_results_are_written(tmp_path, rows):
    files = write_results(rows, tmp_path, COMMAND)
    assert {path.name for path in files} == {"README.md", "index.html", "parts.png", "ratio.png"}
    for path in files:
        assert path.stat().st_size > 0
        if path.suffix == ".png":
            assert path.read_bytes().startswith(b"\x89PNG")


def test_the_command_writes_results_that_name_it(tmp_path, monkeypatch, capsys):
    arguments = ["zoo", "torchvision/squeezenet1_1", "--jobs", "1", "--output", str(tmp_path)]
    monkeypatch.setattr(sys, "argv", ["puppetize", *arguments])
    with pytest.raises(SystemExit) as stop:
        cli.main()
    assert stop.value.code == 0
    assert f"{tmp_path}: 1 passed" in capsys.readouterr().out
    data = data_of((tmp_path / "index.html").read_text(encoding="utf-8"))
    assert data["command"] == shlex.join(["puppetize", *arguments])
    (row,) = data["rows"]
    assert row[:3] == ["torchvision/squeezenet1_1", "torchvision", "squeezenet"]
    (back,) = read_table(tmp_path / "torchvision.csv")
    assert f"| squeezenet | 1 | {back.ratio:.1f} |" in (tmp_path / "README.md").read_text()


def test_coverage_replaces_what_stood_there(tmp_path):
    readme = tmp_path / "README.md"
    readme.write_text("above\n<!-- coverage: begin -->\nold\n<!-- coverage: end -->\nbelow\n")
    update_coverage(readme, ROWS, COMMAND, "results")
    assert read_coverage(readme) == coverage(ROWS, COMMAND, "results")
    text = readme.read_text()
    assert text.startswith("above\n<!--")
    assert text.endswith("-->\nbelow\n")
    update_coverage(readme, ROWS, COMMAND, "results")
    assert readme.read_text() == text


def test_a_readme_without_the_comments_is_refused(tmp_path):
    readme = tmp_path / "README.md"
    readme.write_text("<!-- coverage: end -->\n<!-- coverage: begin -->\n")
    with pytest.raises(PuppetizeError, match="coverage: begin"):
        update_coverage(readme, ROWS, COMMAND, "results")


def test_the_readme_says_what_the_tables_say():
    results = ROOT / "benchmarks" / "results" / "zoo"
    tables = [results / "timm.csv", results / "torchvision.csv"]
    if not all(path.exists() for path in tables):
        pytest.skip("the sweep's tables are not here")
    rows = [row for path in tables for row in read_table(path)]
    expected = coverage(rows, "uv run python benchmarks/zoo.py", "benchmarks/results/zoo")
    assert read_coverage(ROOT / "README.md") == expected
