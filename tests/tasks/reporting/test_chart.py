import xml.etree.ElementTree as ET
from datetime import timedelta

from darkroom.tasks.reporting.chart import draw_chart
from tests.tasks.helpers import NOON, past_run


def test_a_chart_has_a_bar_for_each_value_newest_last():
    runs = tuple(
        past_run(str(day), started=NOON - timedelta(days=day), ok=100 - day, failed=day % 2) for day in range(30)
    )
    svg = ET.fromstring(draw_chart(runs))  # noqa: S314 - our own output
    space = "{http://www.w3.org/2000/svg}"
    panels = svg.findall(f"{space}g")
    texts = [[text.text for text in panel.findall(f"{space}text")] for panel in panels]
    assert [panel[0] for panel in texts] == ["made", "failed", "took", "images/s"]
    assert texts[0][1:] == ["last 100, most 100", "10-03", "11-01"]
    assert texts[2][1] == "last 12.0 s, most 12.0 s"
    bars = [panel.findall(f"{space}rect") for panel in panels]
    assert [len(panel) for panel in bars] == [30, 15, 30, 30]
    lefts = [float(bar.get("x")) for bar in bars[0]]
    heights = [float(bar.get("height")) for bar in bars[0]]
    assert lefts == sorted(lefts)
    assert heights == sorted(heights)
    right = max(float(bar.get("x")) + float(bar.get("width")) for panel in bars for bar in panel)
    assert right <= float(svg.get("width")) / 4


def test_zeros_have_no_bars():
    svg = draw_chart((past_run(seconds=0.0, work_seconds=0.0), past_run(seconds=0.0, work_seconds=0.0)))
    assert b"<rect" not in svg
