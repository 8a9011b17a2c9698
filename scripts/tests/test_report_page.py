"""The report's page in a browser: every number is there, nothing is loaded, nothing hangs over the edge of a phone."""

from __future__ import annotations

import json
import shutil
import subprocess
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
REPORT = ROOT / "target/release/report"
RESULTS = ROOT / "tests/golden/report/results.json"
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
FLAGS = (
    "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync --enable-logging=stderr --v=0 --virtual-time-budget=2000 "
    "--hide-scrollbars --window-size=1400,1000"
).split()
# Written into a copy of the page, for only a browser knows how wide it becomes. No window is as narrow as a phone, but a
# frame is; it sends what it shows to the page around it.
MEASURE = """<script>addEventListener("load", () => {
const set = (name, value) => document.documentElement.setAttribute(name, value);
set("data-window", document.documentElement.clientWidth);
set("data-width", Math.max(document.documentElement.scrollWidth, document.body.scrollWidth));
set("data-loaded", performance.getEntriesByType("resource").map((entry) => entry.name).join(" "));
parent.postMessage(document.documentElement.outerHTML, "*");
});</script></body>"""
FRAME = """<!doctype html><title>frame</title><body>
<script>addEventListener("message", (message) => {{ document.body.textContent = message.data; }});</script>
<iframe src="page.html" style="border: 0; width: {width}px; height: 900px"></iframe>"""
VOID = {"meta", "link", "br", "hr", "img", "input", "image", "rect", "circle", "line", "polygon", "polyline", "path"}
LOADING = {"src", "srcset", "href", "xlink:href", "data", "poster", "action"}


@dataclass
class Element:
    tag: str
    attributes: dict[str, str | None]
    inside: list[Element] = field(default_factory=list)
    text: str = ""

    def all(self, tag: str) -> list[Element]:
        below = [found for element in self.inside for found in element.all(tag)]
        return ([self] if self.tag == tag else []) + below

    def numbers(self, name: str = "data-value") -> list[float]:
        own = self.attributes.get(name)
        below = [number for element in self.inside for number in element.numbers(name)]
        return ([float(own)] if own is not None else []) + below

    def words(self) -> str:
        return self.text + "".join(element.words() for element in self.inside)


class Tree(HTMLParser):
    """The elements, as far as the tests ask for them."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.root = Element("", {})
        self.open = [self.root]
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        element = Element(tag, dict(attrs))
        self.open[-1].inside.append(element)
        if tag not in VOID:
            self.open.append(element)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.open[-1].inside.append(Element(tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        if tag in (element.tag for element in self.open[1:]):
            while self.open.pop().tag != tag:
                pass

    def handle_data(self, data: str) -> None:
        self.open[-1].text += data


@dataclass
class Shown:
    """A page as a browser has it."""

    page: Element
    log: str

    @property
    def html(self) -> Element:
        return self.page.all("html")[0]


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if not REPORT.exists():
        pytest.skip(f"{REPORT} is not there: cargo build --release -p zipit-report")
    folder = tmp_path_factory.mktemp("report")
    subprocess.run([REPORT, RESULTS, "-o", folder], check=True)
    return folder


@pytest.fixture(scope="module", params=[1280, 390])
def shown(request: pytest.FixtureRequest, report: Path, tmp_path_factory: pytest.TempPathFactory) -> Shown:
    browser = next((path for name in BROWSERS if (path := shutil.which(name))), None)
    if browser is None:
        pytest.skip(f"no browser: none of {', '.join(BROWSERS)} is installed")
    folder = tmp_path_factory.mktemp("browser")
    html = (report / "report.html").read_text()
    assert html.count("</body>") == 1
    (folder / "page.html").write_text(html.replace("</body>", MEASURE))
    frame = folder / "frame.html"
    frame.write_text(FRAME.format(width=request.param))
    command = [browser, *FLAGS, f"--user-data-dir={folder / 'profile'}", "--dump-dom", frame.as_uri()]
    done = subprocess.run(command, check=True, timeout=180, capture_output=True, text=True)
    page = Shown(Tree(Tree(done.stdout).root.all("body")[0].text).root, done.stderr)
    assert page.html.attributes["data-window"] == str(request.param), "the frame is not as wide as asked for"
    return page


def values(stat: dict[str, Any] | None) -> list[tuple[float, float | None]]:
    return [] if stat is None else [(stat["mean"], stat["std"])]


def test_nothing_goes_wrong_in_the_console(shown: Shown) -> None:
    assert "CONSOLE" not in shown.log, shown.log


def test_nothing_is_loaded(shown: Shown) -> None:
    assert shown.html.attributes["data-loaded"] == ""

    def check(element: Element) -> None:
        for name, value in element.attributes.items():
            if name in LOADING:
                assert value is not None and value.startswith(("#", "data:")), (element.tag, name, value)
        for inside in element.inside:
            check(inside)

    check(shown.page)
    assert not shown.page.all("link")
    assert all("url(" not in style.text and "@import" not in style.text for style in shown.page.all("style"))


def test_the_page_is_no_wider_than_the_window(shown: Shown) -> None:
    assert int(shown.html.attributes["data-width"] or 0) <= int(shown.html.attributes["data-window"] or 0)


def test_every_number_of_the_results_is_in_its_table(shown: Shown) -> None:
    results = json.loads(RESULTS.read_text())
    tables = {table.all("caption")[0].words(): table for table in shown.page.all("table")}

    def rows(begin: str) -> dict[str, Element]:
        found = [table for caption, table in tables.items() if caption.startswith(begin)]
        assert len(found) == 1, (begin, list(tables))
        body = found[0].all("tbody")[0].all("tr")
        named = {row.all("th")[0].text.strip(): row for row in body}
        assert len(named) == len(body), begin
        return named

    for case in results["cases"]:
        table = rows(f"{case['name']}: mean")
        assert len(table) == len(case["rows"])
        for row in case["rows"]:
            stats = [*row["tasks"].values(), row["task_avg"], row["joint"], row["calibrated"], row["gate"]]
            expected = [pair for stat in stats for pair in values(stat)]
            costs = [row["relative_macs"], row["relative_params"], row["params"], *row["images"].values()]
            found = table[row["model"]]
            assert sorted(found.numbers()) == sorted([mean for mean, _ in expected] + costs), row["model"]
            assert sorted(found.numbers("data-std")) == sorted(std for _, std in expected if std is not None)
        for choice in case["choices"]:
            table = rows(f"{choice['name']}: ")
            for candidate in choice["candidates"]:
                expected = [candidate["alpha"], candidate["beta"], candidate["task_avg"]]
                assert table[candidate["model"]].numbers() == expected
        if case["shown"]:
            table = rows(f"{case['shown']['model']}: its merge points")
            for point in case["shown"]["points"]:
                numbers = table[point["name"]].numbers()
                assert numbers[0] == point["n_features"]
                assert numbers[2:5] == [point["single"], point["within"], point["across"]]
    published = rows("Published by others")
    for row in results["published"]:
        expected = [x for x in (row["task_avg"], row["joint"], row["relative_macs"]) if x is not None]
        assert published[row["model"]].numbers() == expected
    time = rows("Time by stage")
    for stage in results["time"]:
        assert time[stage["stage"]].numbers() == [stage["n_files"], stage["seconds"]]


def test_every_drawing_has_a_name(shown: Shown) -> None:
    drawings = shown.page.all("svg")
    assert len(drawings) >= 8
    for drawing in drawings:
        assert drawing.attributes.get("role") == "img"
        assert len(drawing.attributes.get("aria-label") or "") > 20
        assert any(character.isdigit() for character in drawing.attributes["aria-label"] or "")
    assert len(shown.page.all("figure")) == len(shown.page.all("figcaption")) == len(drawings)


def test_headings_and_landmarks_are_in_order(shown: Shown) -> None:
    for landmark in ("header", "nav", "main", "footer", "h1"):
        assert len(shown.page.all(landmark)) == 1, landmark
    levels: list[int] = []

    def collect(element: Element) -> None:
        if element.tag in ("h1", "h2", "h3", "h4"):
            levels.append(int(element.tag[1]))
        for inside in element.inside:
            collect(inside)

    collect(shown.page)
    assert levels[0] == 1
    assert all(after <= before + 1 for before, after in zip(levels, levels[1:], strict=False)), levels
    for table in shown.page.all("table"):
        assert all(cell.attributes.get("scope") for cell in table.all("th"))
    assert shown.html.attributes["lang"] == "en"


def test_links_lead_somewhere(shown: Shown) -> None:
    names: list[str] = []

    def collect(element: Element) -> None:
        if (name := element.attributes.get("id")) is not None:
            names.append(name)
        for inside in element.inside:
            collect(inside)

    collect(shown.page)
    assert len(set(names)) == len(names)
    for link in shown.page.all("a"):
        assert (link.attributes["href"] or "")[1:] in names
