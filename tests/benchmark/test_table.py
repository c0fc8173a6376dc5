from __future__ import annotations

import csv
import io

from sotglp.benchmark.table import Entry, Table, to_csv, to_latex, to_markdown, to_text

TABLE = Table(
    "A & B_1 (%)",
    ("method", "x|y", "z"),
    (
        (Entry("no_projection *new*"), Entry("50.0 ± 1.0", None, True), Entry("–")),
        (Entry("[K\n5] <b>"), Entry("< 0.001"), Entry("3", None, True)),
    ),
    ("50 % of $x^2$ ~ {y} \\ #1 – _so_",),
)


def test_markdown() -> None:
    assert to_markdown(TABLE).split("\n") == [
        "### A & B_1 (%)",
        "",
        r"| method                |           x\|y |     z |",
        r"| :-------------------- | -------------: | ----: |",
        r"| no_projection \*new\* | **50.0 ± 1.0** |     – |",
        r"| \[K 5] \<b>           |        < 0.001 | **3** |",
        "",
        r"50 % of $x^2$ ~ {y} \\ #1 – \_so\_",
        "",
    ]


def test_latex() -> None:
    assert to_latex(TABLE).split("\n") == [
        r"\begin{table}",
        r"\centering",
        r"\caption{A \& B\_1 (\%)}",
        r"\begin{tabular}{lrr}",
        r"\toprule",
        r"method & x|y & z \\",
        r"\midrule",
        r"no\_projection {*}new{*} & \textbf{50.0 $\pm$ 1.0} & -- \\",
        r"{[}K 5] $<$b$>$ & $<$ 0.001 & \textbf{3} \\",
        r"\bottomrule",
        r"\end{tabular}",
        r"\par\smallskip{\footnotesize 50 \% of \$x\textasciicircum{}2\$ \textasciitilde{} \{y\} \textbackslash{} "
        r"\#1 -- \_so\_\par}",
        r"\end{table}",
        "",
    ]


def test_csv() -> None:
    assert list(csv.reader(io.StringIO(to_csv(TABLE)))) == [
        ["method", "x|y", "z"],
        ["no_projection *new*", "50.0 ± 1.0", "–"],
        ["[K\n5] <b>", "< 0.001", "3"],
    ]


def test_text_for_a_terminal() -> None:
    table = Table("Title", ("method", "a"), ((Entry("coop"), Entry("5.0", None, True)),), ("One note.",))
    assert to_text(table).split("\n") == ["Title", "", "method    a", "coop    5.0", "", "One note."]
