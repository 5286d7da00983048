"""Pictures are well-formed and stay inside their frame, whatever was measured."""

import re
import xml.etree.ElementTree as Tree

from hypothesis import given
from hypothesis import strategies as st

from onnxq.report import drawing
from onnxq.report.measures import Timing
from onnxq.report.rows import ChannelPicture, FrontRow, LayerRow

magnitude = st.floats(0, 1e30) | st.just(0.0)
decibels = st.none() | st.floats(-200, 400) | st.sampled_from([float("inf"), float("nan")])
times = st.floats(0, 1e9)


def frame_holds(picture: str) -> Tree.Element:
    """Parse, and check every coordinate against the view box."""
    svg = Tree.fromstring(picture)[0]
    _, _, width, height = map(float, svg.attrib["viewBox"].split())
    for mark in svg.iter():
        for name, limit in (("x", width), ("x1", width), ("x2", width), ("cx", width)):
            assert 0 <= float(mark.attrib.get(name, 0)) <= limit
        for name in ("y", "y1", "y2", "cy"):
            assert 0 <= float(mark.attrib.get(name, 0)) <= height
        for x, bottom, level in re.findall(r"M([\d.]+) ([\d.]+)V([\d.]+)", mark.attrib.get("d", "")):
            assert float(x) <= width
            assert 0 <= float(level) <= float(bottom) <= height
    return svg


@given(st.lists(magnitude, max_size=600), st.lists(magnitude, max_size=600))
def test_channel_pictures(before: list[float], after: list[float]) -> None:
    svg = frame_holds(drawing.channel_ranges(ChannelPicture("<layer> & co", tuple(before), tuple(after))))
    strokes = [mark.attrib["d"].count("M") for mark in svg.iter() if "d" in mark.attrib]
    assert strokes == [min(len(before), 240), min(len(after), 240)]


def test_an_outlier_survives_the_narrowing_of_a_wide_layer() -> None:
    values = [1.0] * 5000
    values[4321] = 100.0
    narrow = frame_holds(drawing.channel_ranges(ChannelPicture("x", tuple(values), (1.0,))))
    path = next(mark.attrib["d"] for mark in narrow.iter() if "d" in mark.attrib)
    heights = [float(level) for level in re.findall(r"V([\d.]+)", path)]
    assert sorted(heights)[0] < sorted(heights)[1]


@given(st.lists(decibels, max_size=100))
def test_layer_errors(values: list[float | None]) -> None:
    rows = [LayerRow(f"n{i}", "linear", 4, 4, "int8", "why", value) for i, value in enumerate(values)]
    svg = frame_holds(drawing.layer_errors(rows))
    dots = [mark for mark in svg if mark.tag == "circle"]
    assert len(dots) == sum(value is not None and abs(value) < 1e9 for value in values)


def test_a_better_layer_stands_higher() -> None:
    rows = [LayerRow("a", "linear", 4, 4, "int8", "", 10.0), LayerRow("b", "linear", 4, 4, "float", "", 30.0)]
    low, high = [mark for mark in frame_holds(drawing.layer_errors(rows)) if mark.tag == "circle"]
    assert float(high.attrib["cy"]) < float(low.attrib["cy"])
    assert low.attrib["class"] != high.attrib["class"]


@given(st.lists(st.tuples(st.floats(1e-3, 1e9), st.floats(0, 1e9)), min_size=2, max_size=50))
def test_front_curve(points: list[tuple[float, float]]) -> None:
    rows = [FrontRow(cost, error, f"<step {i}>", i == 1) for i, (cost, error) in enumerate(points)]
    shown = sum(row.error > 0 for row in rows)
    picture = drawing.front_curve(rows)
    if shown < 2:
        assert not picture
        return
    dots = [mark for mark in frame_holds(picture) if mark.tag == "circle"]
    assert len(dots) == shown
    assert sum(mark.attrib["class"] == "ours" for mark in dots) == (points[1][1] > 0)


def test_a_plan_with_less_error_stands_higher_and_a_slower_one_further_right() -> None:
    rows = [FrontRow(100, 0.5), FrontRow(120, 0.01, "x: float", chosen=True)]
    fast, close = [mark for mark in frame_holds(drawing.front_curve(rows)) if mark.tag == "circle"]
    assert float(close.attrib["cy"]) < float(fast.attrib["cy"])
    assert float(close.attrib["cx"]) > float(fast.attrib["cx"])
    assert "x: float" in Tree.tostring(close, "unicode")


@given(st.lists(st.tuples(times, times, st.none() | st.floats(0, 100)), max_size=12))
def test_latency_bars(rows: list[tuple[float, float, float | None]]) -> None:
    timings = [
        Timing(f"model {i}", f"x={i // 2}", 2, min(least, median), median, 0.0, ratio)
        for i, (least, median, ratio) in enumerate(rows)
    ]
    svg = frame_holds(drawing.latency_bars(timings))
    assert sum(mark.tag == "rect" for mark in svg) == len(rows)


def test_bars_are_as_long_as_the_times_they_stand_for() -> None:
    timings = [Timing("fp32", "x", 2, 8, 10, 0), Timing("int8", "x", 2, 4, 5, 0, 2.0)]
    slow, fast = [mark for mark in frame_holds(drawing.latency_bars(timings)) if mark.tag == "rect"]
    assert float(slow.attrib["width"]) == 2 * float(fast.attrib["width"])
