"""The table, on the terminal and as Markdown, and the chart."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .measure import Contender, Row

DOCS = Path(__file__).parents[1] / "docs"
PAGE = DOCS / "benchmarks.md"
CHART = DOCS / "benchmarks.svg"

_INTRODUCTION = """\
# Benchmarks

`make bench` measures all of this side by side in one run, and writes this page; do not edit it by hand. Each
value is the median of several turns, one contender after the other; after ± is half of the spread of their
middle half. The ratios are what counts: absolute times are those of one machine in a certain hour. A ratio is
the median of the ratios of each turn, and after ± is its standard error: turns go on until that is 1 %, or
there were enough. **Bare** is an ASGI app that does nothing but answer, in a host the host's own trivial
route, and for messages `FastStream(broker).run()`. A mark after a goal says whether this run met it."""

_HEADINGS = ("What", "Unit", "Bare", "`faststream.asgi`", "Ours", "Ours ÷ bare", "Ours ÷ upstream", "Goal")


def _value(row: "Row", contender: "Contender") -> str:
    if contender not in row.values:
        return ""
    return f"{row.median(contender):.4g} ± {row.spread(contender):.0%}"


def _ratio(row: "Row", than: "Contender") -> str:
    return f"{row.ratio(than):.3g} ± {row.error(than):.1%}" if than in row.values else ""


def _goal(row: "Row") -> str:
    goals = [str(goal) for goal in row.goals]
    goals += [f"at most {row.limit:g} {row.unit}"] if row.limit is not None else []
    return "; ".join(goals) + ("" if row.met is None else " ✓" if row.met else " ✗ missed")


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
            ratio = row.median("upstream") / row.median("bare")
            axes.barh(place - 0.2, ratio, height=0.38, color="#ced4da", label="faststream.asgi")
    axes.axvline(1, color="#495057", linewidth=0.8)
    axes.set_xscale("log")
    axes.set_yticks(range(len(rows)), [name for name, _ in rows], fontsize=8)
    axes.set_xlabel("multiple of bare (times: less is better; requests per second: more is better)")
    handles, labels = axes.get_legend_handles_labels()
    unique = dict(zip(labels, handles, strict=True))
    axes.legend(unique.values(), unique.keys(), loc="lower right")
    figure.savefig(path, metadata={"Date": None})
