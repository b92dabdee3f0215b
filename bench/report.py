"""The table, on the terminal and as Markdown, and the chart."""

import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .measure import Contender, Row, Verdict

DOCS = Path(__file__).parents[1] / "docs"
PAGE = DOCS / "benchmarks.md"
CHART = DOCS / "benchmarks.svg"

_INTRODUCTION = """\
# Benchmarks

`make bench` measures all of this side by side in one run, and writes this page; do not edit it by hand. Each
value is the median of several turns. In a turn the contenders alternate: every few milliseconds where they
are in one process, every tenth of a second where they are processes under load, the others being stopped
meanwhile; a storm and the quiet that it is compared with take some seconds each. After ± is half of the
spread of the middle half. The ratios are what counts: absolute times are those of one machine in a certain
hour. A ratio is the median of the ratios of each turn, and after ± is its standard error. Where there is a
goal, turns go on until that is 1 %, or the ratio is far from the goal, or there were enough; a goal is
"open" where the ratio is nearer to it than 2.5 times its error. **Bare** is an ASGI app that does nothing
but answer, in a host the host's own trivial route, and for messages `FastStream(broker).run()`."""

_HEADINGS = ("What", "Unit", "Bare", "`faststream.asgi`", "Ours", "Ours ÷ bare", "Ours ÷ upstream", "Goal")
_MARKS: dict["Verdict", str] = {"met": " ✓", "missed": " ✗ missed", "open": " ~ open"}


def _value(row: "Row", contender: "Contender") -> str:
    if contender not in row.values:
        return ""
    return f"{row.median(contender):.4g} ± {row.spread(contender):.0%}"


def _ratio(row: "Row", than: "Contender") -> str:
    if than not in row.values:
        return ""
    error = row.error(than)
    return f"{row.ratio(than):.3g}" + (f" ± {error:.1%}" if math.isfinite(error) else "")


def _goal(row: "Row") -> str:
    goals = [str(goal) for goal in row.goals]
    goals += [f"at most {row.limit:g} {row.unit}"] if row.limit is not None else []
    return "; ".join(goals) + (_MARKS[row.verdict] if row.verdict else "")


def table(rows: Iterable["Row"]) -> str:
    """Return the rows as a Markdown table."""
    lines = [_HEADINGS, tuple("---" for _ in _HEADINGS)]
    for row in rows:
        what = f"{row.what} ({row.note})" if row.note else row.what
        lines.append(
            (
                what,
                row.unit,
                _value(row, "bare"),
                _value(row, "upstream"),
                _value(row, "ours"),
                _ratio(row, "bare"),
                _ratio(row, "upstream"),
                _goal(row),
            )
        )
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def page(sections: Mapping[str, list["Row"]], about: str) -> str:
    """Return the page with all sections."""
    parts = [_INTRODUCTION, about, "![Ratios to the bare application](benchmarks.svg)"]
    for title, rows in sections.items():
        parts += [f"## {title}", table(rows)]
    return "\n\n".join(parts) + "\n"


def chart(sections: Mapping[str, list["Row"]], path: Path) -> None:
    """Draw how each row's ratio to bare compares with upstream's."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    # The same input gives the same file.
    mpl.rcParams["svg.hashsalt"] = "faststream_adapters"
    rows = [
        (f"{row.what.replace('`', '')} [{row.unit}]", row)
        for section in sections.values()
        for row in section
        if "bare" in row.values
    ][::-1]
    figure = Figure(figsize=(10, 0.36 * len(rows) + 1.5), layout="constrained")
    axes = figure.subplots()
    for place, (_, row) in enumerate(rows):
        axes.barh(place + 0.2, row.ratio("bare"), height=0.38, color="#0b7285", label="faststream_adapters")
        if "upstream" in row.values:
            ratio = row.ratio("bare", of="upstream")
            axes.barh(place - 0.2, ratio, height=0.38, color="#ced4da", label="faststream.asgi")
    axes.axvline(1, color="#495057", linewidth=0.8)
    axes.set_xscale("log")
    axes.set_yticks(range(len(rows)), [name for name, _ in rows], fontsize=8)
    axes.set_xlabel("multiple of bare (times: less is better; requests per second: more is better)")
    handles, labels = axes.get_legend_handles_labels()
    unique = dict(zip(labels, handles, strict=True))
    axes.legend(unique.values(), unique.keys(), loc="lower right")
    figure.savefig(path, metadata={"Date": None})
