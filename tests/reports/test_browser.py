"""The page in a real browser: charts are drawn, nothing is refused, nothing overflows."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from typing import TYPE_CHECKING

import pytest

from apftrace_reports.registry import by_name

if TYPE_CHECKING:
    from pathlib import Path

WIDE = """
  const root = inside.documentElement;
  document.title = root.scrollWidth > root.clientWidth ? "too wide: " + root.scrollWidth : "fits";
"""
POINT = """
  const box = inside.querySelector("#timeline .mark-rect path").getBoundingClientRect();
  const at = { clientX: box.x + box.width / 2, clientY: box.y + box.height / 2, bubbles: true };
  const mark = inside.querySelector("#timeline .mark-rect path");
  for (const name of ["pointerover", "pointermove"]) mark.dispatchEvent(new PointerEvent(name, at));
  const tip = inside.getElementById("vg-tooltip-element");
  document.title = tip.innerText.replace(/\\s+/g, " ") + ", " + getComputedStyle(tip).visibility;
"""
GAPS = """
  const place = (mark) => Math.round(mark.getBoundingClientRect().x);
  const gaps = (name) => [...inside.querySelectorAll(`#${name} path[stroke="var(--gap)"]`)].map(place);
  document.title = JSON.stringify(["scatter", "timeline", "outstanding"].map(gaps));
"""
RECORDS = """
  const pre = inside.querySelector("details[open] > pre");
  const look = getComputedStyle(pre);
  const height = parseFloat(look.lineHeight) * pre.textContent.trimEnd().split("\\n").length;
  const filled = (pre.clientHeight - parseFloat(look.paddingTop) * 2) / height;
  const scrolls = pre.scrollWidth > pre.clientWidth;
  document.title = [scrolls, Math.round(filled), look.fontFamily.includes("monospace")];
"""
NAMES = """
  const top = (node, at) => {
    const range = inside.createRange();
    range.setStart(node, at);
    range.setEnd(node, at + 1);
    return range.getBoundingClientRect().top;
  };
  const names = [...inside.querySelectorAll("details[open] .evidence code")].map((code) => [...code.childNodes]);
  const wrapped = names.filter((parts) => top(parts[0], 0) < top(parts.at(-1), parts.at(-1).data.indexOf(":")));
  const torn = names.flat().filter((part) => part.data && top(part, 0) < top(part, part.data.split(":")[0].length - 1));
  document.title = `${wrapped.length > 0}, ${torn.length} torn`;
"""
FRAME = """<!DOCTYPE html>
<iframe id="page" src="page.html" style="border:0;width:{width}px;height:4000px"></iframe>
<script>
const frame = document.getElementById("page");
const look = () => {{
  const inside = frame.contentDocument;
  const drawn = inside.documentElement.dataset.charts || !inside.querySelector("[data-chart]");
  if (!drawn) return setTimeout(look, 50);
{look}}};
frame.onload = look;
</script>"""


def browse(page: Path, profile: Path, *wanted: str) -> tuple[str, list[str]]:
    """Return the page as it is after its scripts ran, and what the console says."""
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    assert chromium, "the page can only be tested with chromium on the PATH"
    ran = subprocess.run(
        [
            chromium, "--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking",
            "--disable-sync", "--no-first-run", "--allow-file-access-from-files", "--enable-logging=stderr",
            f"--user-data-dir={profile}", "--virtual-time-budget=20000", "--window-size=1280,2000",
            *(wanted or ["--dump-dom"]), page.as_uri(),
        ],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )  # fmt: skip
    return ran.stdout, [line for line in ran.stderr.splitlines() if "CONSOLE" in line]


@pytest.mark.parametrize(
    ("name", "charts"), [("single", 1), ("rich", 5), ("lossy", 5), ("hostile", 5), ("many", 4)]
)
def test_every_chart_is_drawn_without_a_complaint(built, tmp_path, name, charts):
    page = tmp_path / "page.html"
    by_name("html").write(built[name], page)
    dom, console = browse(page, tmp_path / "profile")
    assert console == []
    assert re.search(r'data-charts="([^"]*)"', dom).group(1) == f"{charts}/{charts}"
    assert len(re.findall('<svg [^>]*class="marks"', dom)) == charts


def test_a_script_that_a_trace_brings_along_is_refused(built, tmp_path):
    # The policy itself: even if escaping failed, the script would not run.
    page = tmp_path / "page.html"
    text = by_name("html").render(built["rich"]).decode()
    page.write_text(text.replace("<main>", "<main><script>document.title = 'owned'</script>", 1), "utf-8")
    dom, console = browse(page, tmp_path / "profile")
    assert "<title>owned</title>" not in dom
    assert any("Content Security Policy" in line for line in console)


@pytest.mark.parametrize("name", ["empty", "lossy", "hostile", "many"])
@pytest.mark.parametrize("width", [390, 1280])
def test_the_page_does_not_scroll_sideways(built, tmp_path, name, width):
    by_name("html").write(built[name], tmp_path / "page.html")
    (tmp_path / "frame.html").write_text(FRAME.format(width=width, look=WIDE))
    dom, _ = browse(tmp_path / "frame.html", tmp_path / "profile")
    assert re.search("<title>(.*)</title>", dom).group(1) == "fits"


def test_a_mark_tells_its_numbers(built, tmp_path):
    by_name("html").write(built["single"], tmp_path / "page.html")
    (tmp_path / "frame.html").write_text(FRAME.format(width=1280, look=POINT))
    dom, console = browse(tmp_path / "frame.html", tmp_path / "profile")
    assert console == []
    assert re.search("<title>(.*)</title>", dom).group(1) == "token 0x26b001 phase P1 took 200 µs, visible"


@pytest.mark.parametrize("width", [390, 1280])
def test_a_gap_stands_at_one_place_in_every_chart_of_time(built, tmp_path, width):
    by_name("html").write(built["lossy"], tmp_path / "page.html")
    (tmp_path / "frame.html").write_text(FRAME.format(width=width, look=GAPS))
    dom, _ = browse(tmp_path / "frame.html", tmp_path / "profile")
    scatter, timeline, outstanding = json.loads(re.search("<title>(.*)</title>", dom).group(1))
    assert len(scatter) == 3
    assert scatter == timeline == outstanding


def test_raw_records_are_not_wrapped_and_scroll_by_themselves(built, tmp_path):
    by_name("html").write(built["lossy"], tmp_path / "page.html")
    (tmp_path / "frame.html").write_text(FRAME.format(width=390, look=RECORDS))
    dom, _ = browse(tmp_path / "frame.html", tmp_path / "profile")
    assert re.search("<title>(.*)</title>", dom).group(1) == "true,1,true"


def test_a_long_report_prints_on_few_pages(built, tmp_path):
    by_name("html").write(built["many"], tmp_path / "page.html")
    browse(tmp_path / "page.html", tmp_path / "profile", f"--print-to-pdf={tmp_path / 'page.pdf'}")
    assert 3 <= len(re.findall(rb"/Type /Page\b", (tmp_path / "page.pdf").read_bytes())) <= 10


def test_names_of_events_break_after_an_underscore(built, tmp_path):
    by_name("html").write(built["rich"], tmp_path / "page.html")
    (tmp_path / "frame.html").write_text(FRAME.format(width=320, look=NAMES))
    dom, _ = browse(tmp_path / "frame.html", tmp_path / "profile")
    assert re.search("<title>(.*)</title>", dom).group(1) == "true, 0 torn"
