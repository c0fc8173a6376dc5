from __future__ import annotations

from matplotlib.figure import Figure

from sotglp.console.html import figure_html, parts_html
from sotglp.console.table import Table


def test_text_is_escaped_and_numbers_are_at_the_right() -> None:
    html = parts_html("<b>", ["", "a & b", Table(["name", "n"], [["<script>", "1"]], right=(1,)), Table((), [])])
    assert "<script>" not in html
    assert "&lt;b&gt;" in html
    assert html.count("<p>") == 1
    assert html.count("<table>") == 1
    assert '<td style="text-align: right">1</td>' in html


def test_a_figure_holds_its_own_data_and_a_description() -> None:
    html = figure_html(Figure(figsize=(1, 1)), 'a "picture"')
    assert html.startswith('<img src="data:image/png;base64,')
    assert 'alt="a &quot;picture&quot;"' in html
