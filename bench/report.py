"""Write the results: tables in Markdown, the page docs/benchmarks.md, its chart, and all of it as JSON."""

import json
import math
from collections.abc import Collection, Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from textwrap import fill
from typing import Any

from .measure import Contender, Goal, Row, Verdict

DOCS = Path(__file__).parents[1] / "docs"
PAGE = DOCS / "benchmarks.md"
CHART = DOCS / "benchmarks.svg"
JSON = DOCS / "benchmarks.json"
RELEASED = DOCS / "benchmarks-released.json"
"""The results of the last release: `make release` copies them."""

_INTRODUCTION = """\
# Benchmarks

`make bench` measures what is on this page, and writes the page; do not edit it by hand. What a section
compares is measured side by side in one run. `make bench ARGS=start` measures one section anew, and
`make bench ARGS=page` writes the page from the results that there are.

Each value is the median of several rounds, and ± is half the interquartile range. Within a round the
contenders alternate: every few milliseconds inside one process, and every tenth of a second for processes
under load, while the other processes are stopped. Latencies with and without probes are measured for a few
seconds each, imports and starts one at a time.

Compare the ratios: absolute times depend on the machine and on what else it does at the time. A ratio is the
median of the ratios of all rounds, and ± is its standard error. Where there is a goal, the eighth round is
followed by others until the ratio is 5 standard errors away from the goal, until 16 rounds have brought the
standard error to 1 % or less, or until the maximum number of rounds is reached (4 with many subscribers). A
goal is "inconclusive" if the ratio is within 2.5 standard errors of it.

**Bare** is an ASGI app that only responds. In a host it is a trivial route of that host, and for messages it
is `FastStream(broker).run()`; where the operation says "bare: without", it is the same service without the
feature. **Upstream** is `faststream.asgi`, and **adapters** is this package. The last column has the same
ratio to bare, or the value where there is none, as measured for the last release; it is empty until there is
one. [benchmarks.json](benchmarks.json) has the value of each round."""

_EXPLANATIONS: Mapping[str, str] = {
    "in_process": """\
**Concurrent pings.** On asyncio 100 of them take 1 ms of CPU: 380 µs for the tasks, which bare has too, 160
for a future for each caller and the wake-up of its task, 140 for the endpoint, as with `ttl`, and 95 for the
round trip. These parts alone take a quarter of the time of `faststream.asgi`, whose ping only looks at the
client's state. The other 2 µs of each ping start its timeout and evaluate the result. On uvloop it is 780 µs:
240, 105, 150, 75, and the same 2 µs. One future for all callers would cost less, but the cancellation of one
caller would cancel all others.""",
    "under_load": """\
**In a host** most of the time is the host's. In process, one request takes this CPU time (the minimum of 500
rounds of 20 requests, the host's own route before the arrow, liveness after it):

- FastAPI, 37 → 41 µs: FastAPI tries one router after the other, and one route after the other, those of an
  included router twice, in about 1 µs each. The host's own route comes first here. If the application
  includes the `FastStreamRouter` first, it is the other way round: 41 → 37 µs.
- Litestar, 20.4 → 23.8 µs: the endpoint takes 0.8 µs. Its response becomes one of Litestar, which the hooks
  of the application expect, in 1.3 µs, and keeps its own headers in 1.5 µs.
- Quart, 111 → 122 µs: the view makes the response one of Quart (a quarter of the view's time), sets its
  headers, which Werkzeug validates one by one (a fifth), and reads Quart's context (a seventh).

uvicorn adds 30 to 50 µs to each, which brings the ratios nearer to 1. The time in Litestar and Quart is the
price of the host's guards, middleware and hooks. Where probes need none of these, `management_bind` serves
them outside the host, and `FastStreamMiddleware` before it, as in the row of Starlette.""",
    "consuming": """\
**Metrics** cost 6 to 7 µs for each message. FastStream takes 3.3 of them for any middleware, also for one
that does nothing: to enter it, to leave it, and to call the handler through it. That alone is the goal. The
counting takes 2.8. Without a middleware it would be cheaper, but only by replacing methods of FastStream's
subscribers.

**Tracing** is FastStream's own, and costs the same in `faststream.asgi`.""",
    "start": """\
**Import.** `import faststream_adapters` takes less than 1 ms, because each name is imported on first use. All
names take 214 million instructions (counted by valgrind), which is 21 % of the 1,001 million of
`import faststream`. 54 million of them are FastStream's own modules of brokers and subscribers: more than the
goal allows, and any broker imports them. After `import faststream.nats` (1,320 million), all names take 182
million, `AsgiFastStream` 168 and `BrokerLifespan` 98. A third of the time finds and reads 103 modules, and a
fifth compiles 24 regular expressions and makes data classes. Without these, all names would still take more
than twice the goal.

**Memory** in FastAPI: 3.6 MiB are the code of 98 modules, spread evenly, and 0.6 MiB `prometheus_client`.""",
    "scale": """\
**JetStream.** Each subscriber takes 20 to 40 µs of CPU per second, for the request about its consumer every
5 s: nats-py's request and parsing are 62 % of it, and the comparison with what is declared 22 %. Core NATS
has no such request: every 5 s, the tasks of a subscriber that consumes are compared, in 0.7 µs.""",
}
"""What the results of a section do not show, by the name of the section."""

_HEADINGS = (
    "Operation",
    "Unit",
    "Bare",
    "`faststream.asgi`",
    "This package",
    "Ratio to bare",
    "Ratio to `faststream.asgi`",
    "Goal",
    "Last release",
)
_MARKS: dict[Verdict, str] = {"met": " ✓", "missed": " ✗ missed", "inconclusive": " ~ inconclusive"}


def _value(row: Row, contender: Contender) -> str:
    if contender not in row.values:
        return ""
    return f"{row.median(contender):.4g} ± {row.spread(contender):.0%}"


def _ratio(row: Row, baseline: Contender) -> str:
    if baseline not in row.values:
        return ""
    error = row.standard_error(baseline)
    return f"{row.ratio(baseline):.3g}" + (f" ± {error:.1%}" if math.isfinite(error) else "")


def _bounds(row: Row) -> str:
    goals = [str(goal) for goal in row.goals]
    goals += [f"at most {row.limit:g} {row.unit}"] if row.limit is not None else []
    return "; ".join(goals)


def _goal(row: Row) -> str:
    return _bounds(row) + (_MARKS[row.verdict] if row.verdict else "")


@dataclass
class Section:
    """The measurements of one section.

    Args:
        title: Its heading.
        environment: A sentence that says when and where they were made.
        rows: The rows.
    """

    title: str
    environment: str
    rows: list[Row]


def load(path: Path) -> dict[str, Section]:
    """Read sections from a file that `save` has written; none if there is no such file."""
    if not path.exists():
        return {}
    sections = json.loads(path.read_text(encoding="utf-8"))
    return {
        name: Section(section["title"], section["environment"], [_row(**row) for row in section["rows"]])
        for name, section in sections.items()
    }


def _row(goals: list[dict[str, Any]], **fields: Any) -> Row:
    return Row(goals=tuple(Goal(**goal) for goal in goals), **fields)


def save(sections: Mapping[str, Section], path: Path) -> None:
    """Write sections as JSON, with the value of each round."""
    data = {name: asdict(section) for name, section in sections.items()}
    path.write_text(json.dumps(data, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def replace(name: str, section: Section, order: Iterable[str], docs: Path = DOCS) -> None:
    """Replace one section in the JSON file and on the page.

    Args:
        name: The name of the section.
        section: Its new measurements.
        order: The names of all sections, in the order of the page.
        docs: The directory of the files.
    """
    sections = {**load(docs / JSON.name), name: section}
    sections = {each: sections[each] for each in order if each in sections}
    save(sections, docs / JSON.name)
    write_page(docs)


def write_page(docs: Path = DOCS) -> None:
    """Write the page from the JSON files."""
    text = page(load(docs / JSON.name), load(docs / RELEASED.name))
    (docs / PAGE.name).write_text(text, encoding="utf-8")


def _last_release(row: Row, released: Iterable[Row]) -> str:
    for before in released:
        if (before.what, before.unit) == (row.what, row.unit):
            return f"{before.ratio('bare') if 'bare' in before.values else before.median('adapters'):.3g}"
    return ""


def table(rows: Iterable[Row], released: Collection[Row] = ()) -> str:
    """Return the rows as a Markdown table.

    Args:
        rows: The rows.
        released: The rows of the last release.
    """
    lines = [_HEADINGS, tuple("---" for _ in _HEADINGS)]
    for row in rows:
        what = f"{row.what} ({row.note})" if row.note else row.what
        lines.append(
            (
                what,
                row.unit,
                _value(row, "bare"),
                _value(row, "upstream"),
                _value(row, "adapters"),
                _ratio(row, "bare"),
                _ratio(row, "upstream"),
                _goal(row),
                _last_release(row, released),
            )
        )
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def page(sections: Mapping[str, Section], released: Mapping[str, Section]) -> str:
    """Return the page.

    Args:
        sections: The sections by name.
        released: The sections of the last release.
    """
    parts = [_INTRODUCTION, "![Costs relative to the bare application](benchmarks.svg)"]
    for name, section in sections.items():
        before = released[name].rows if name in released else ()
        parts += [f"## {section.title}", section.environment, table(section.rows, before)]
        if name in _EXPLANATIONS:
            parts.append(_EXPLANATIONS[name])
    return "\n\n".join(parts) + "\n"


def _cost(row: Row, contender: Contender) -> float:
    """Return a contender's ratio to bare; of a rate, which is better when it is higher, the inverse."""
    ratio = row.ratio("bare", contender)
    return 1 / ratio if row.unit.endswith("/s") else ratio


def _name(row: Row) -> str:
    """Return the label of a row, whose unit is not split where the label is wrapped."""
    unit = row.unit.replace(" ", "\N{NO-BREAK SPACE}")
    return f"{row.what.replace('`', '')} [{unit}]"


_OFFSETS: dict[Contender, float] = {"adapters": -0.2, "upstream": 0.2}
_COLORS: dict[Contender, tuple[str, str]] = {
    "adapters": ("#0b7285", "faststream_adapters"),
    "upstream": ("#ced4da", "faststream.asgi, or what is named"),
}


def chart(sections: Mapping[str, Section], path: Path) -> None:
    """Write bar charts of the costs relative to bare, one for each section that has them, as SVG."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    # The same results produce the same file.
    mpl.rcParams["svg.hashsalt"] = "faststream_adapters"
    compared = {
        section.title: [row for row in section.rows if "bare" in row.values] for section in sections.values()
    }
    compared = {title: rows for title, rows in compared.items() if rows}
    if not compared:
        return
    heights = [len(rows) for rows in compared.values()]
    figure = Figure(figsize=(11, 0.36 * sum(heights) + 0.6 * len(heights) + 1.5), layout="constrained")
    charts = figure.subplots(len(compared), sharex=True, squeeze=False, height_ratios=heights)[:, 0]
    bars = {}
    for axes, (title, rows) in zip(charts, compared.items(), strict=True):
        for position, row in enumerate(rows):
            for contender, offset in _OFFSETS.items():
                if contender in row.values:
                    cost = _cost(row, contender)
                    color, name = _COLORS[contender]
                    middle = position + offset if "upstream" in row.values else position
                    bar = axes.barh(middle, cost, height=0.38, color=color)
                    axes.bar_label(bar, fmt="%.3g", padding=2, fontsize=7)
                    bars[name] = bar
        axes.axvline(1, color="#495057", linewidth=0.8)
        axes.set_xscale("log")
        # Room for the numbers beside the longest bars.
        axes.margins(x=0.1)
        # The first row is at the top.
        axes.set_ylim(len(rows) - 0.4, -0.6)
        names = [fill(_name(row), 70) for row in rows]
        axes.set_yticks(range(len(rows)), names, fontsize=8)
        axes.set_title(title, loc="left", fontsize=10)
    figure.suptitle("Cost relative to a bare application: lower is better")
    figure.supxlabel("multiple of bare (of a rate: bare's rate as a multiple)", fontsize=10)
    figure.legend(bars.values(), bars.keys(), loc="outside upper right")
    figure.savefig(path, metadata={"Date": None})
