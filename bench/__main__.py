"""Run the benchmarks: all, or the sections that are named on the command line."""

import asyncio
import logging
import os
import platform
import sys
from collections.abc import Awaitable, Callable
from importlib import import_module
from importlib.metadata import version

from .measure import Row
from .report import CHART, PAGE, chart, page, table

SECTIONS = {
    "in_process": "In the process, without a server",
    "under_load": "Under a server, 32 connections",
    "storm": "A thousand probes at once",
    "consuming": "Consuming messages",
    "start": "Start-up and memory",
}


def about() -> str:
    """Return what this was measured on."""
    packages = ("faststream", "uvicorn", "uvloop", "httptools", "granian", "fastapi", "litestar", "quart")
    versions = ", ".join(f"{name} {version(name)}" for name in packages)
    return f"Measured with Python {platform.python_version()} on {os.cpu_count()} cores: {versions}."


def main() -> None:
    """Measure, print as it goes, and write the page and the chart when all sections were measured."""
    logging.disable(logging.CRITICAL)
    names = sys.argv[1:] or list(SECTIONS)
    if unknown := set(names) - set(SECTIONS):
        sys.exit(f"There is no section {', '.join(unknown)}: name {', '.join(SECTIONS)}, or none for all.")
    results: dict[str, list[Row]] = {}
    for name in names:
        measure: Callable[[], Awaitable[list[Row]]] = import_module(f"{__package__}.{name}").measure
        print(f"\n## {SECTIONS[name]}\n", flush=True)
        results[SECTIONS[name]] = rows = asyncio.run(_awaited(measure()))
        print(table(rows), flush=True)
    if set(names) == set(SECTIONS) and not os.environ.get("QUICK"):
        PAGE.write_text(page(results, about()), encoding="utf-8")
        chart(results, CHART)
        print(f"\n{PAGE.name} and {CHART.name} are written.")


async def _awaited(rows: Awaitable[list[Row]]) -> list[Row]:
    return await rows


if __name__ == "__main__":
    main()
