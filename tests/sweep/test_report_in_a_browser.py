"""The report in a real browser: it renders, leaves the console empty and needs no network."""

from __future__ import annotations

import pytest
from headless_browser import browser, open_page
from sweep_rows import run_here

from experiments.sweep.config import CellConfig
from experiments.sweep.report import write_report

pytestmark = pytest.mark.skipif(
    browser() is None, reason="no browser on this machine; `apt-get install chromium`"
)


def test_the_report_renders_without_network(tmp_path):
    folder = tmp_path / "results <&>"
    cells = [
        CellConfig("offset_allocation", {"generated": seed}, solver, 1.0, 0)
        for seed in (1, 2)
        for solver in ("lowest_first", "exact")
    ]
    cells.append(CellConfig("offset_allocation", {"file": "<b>.csv"}, "exact", 1.0, 0))
    run_here(cells, folder)
    write_report(folder)
    page = folder / "report.html"
    seen = open_page(
        page.as_uri(),
        [
            "document.title",
            "[...document.images].length",
            "[...document.images].every(i => i.complete && i.naturalWidth > 200)",
            "[...document.querySelectorAll('h2')].map(h => h.textContent)",
            "document.querySelector('table').rows[1].cells[0].textContent",
            "document.querySelector('ul.error').textContent",
            "document.documentElement.scrollWidth <= window.innerWidth",
        ],
        tmp_path / "profile",
    )
    title, images, decoded, headings, first, failed, fits = seen.values
    assert title == "results <&>"
    assert images == 4
    assert decoded
    assert headings == ["offset_allocation", "Where and when", "Failed cells"]
    assert first == "generated 1"
    assert "<b>.csv" in failed
    assert fits
    assert seen.console == []
    assert [each for each in seen.requests if not each.startswith(("file:", "data:"))] == []


def test_the_browser_would_notice(tmp_path):
    page = tmp_path / "bad.html"
    page.write_text('<img src="http://127.0.0.1:9/x.png"><script>console.error("no"); f()</script>')
    seen = open_page(page.as_uri(), ["document.images[0].naturalWidth"], tmp_path / "profile")
    assert seen.values == [0]
    assert len(seen.console) >= 2
    assert "http://127.0.0.1:9/x.png" in seen.requests
