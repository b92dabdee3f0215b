"""Run the benchmarks: all sections, or those named on the command line."""

import asyncio
import logging
import os
import platform
import shutil
import sys
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from importlib import import_module
from importlib.metadata import version

from .measure import Row
from .report import CHART, JSON, PAGE, RELEASED, Section, chart, load, page, save, table

SECTIONS = {
    "in_process": "In process, without a server",
    "under_load": "Under a server, 32 connections",
    "storm": "A thousand probes per second",
    "consuming": "Consuming messages",
    "scrape": "A scrape",
    "start": "Startup and memory",
    "scale": "Many subscribers and brokers",
    "fleet": "A fleet",
}


def environment() -> str:
    """Return a sentence with the date, the versions and the number of cores."""
    packages = ("faststream", "uvicorn", "uvloop", "httptools", "granian", "fastapi", "litestar", "quart")
    versions = ", ".join(f"{name} {version(name)}" for name in packages)
    where = f"Python {platform.python_version()} on {os.cpu_count()} cores"
    return f"Measured on {datetime.now(UTC):%Y-%m-%d} with {where}: {versions}."


def main() -> None:
    """Measure and print the sections, and replace them on the page, in the chart and in the JSON file."""
    logging.disable(logging.CRITICAL)
    names = sys.argv[1:] or list(SECTIONS)
    if unknown := set(names) - set(SECTIONS):
        sys.exit(
            f"Unknown section: {', '.join(unknown)}. Choose from {', '.join(SECTIONS)}, or omit for all."
        )
    if "under_load" in names and shutil.which("wrk") is None:
        sys.exit("Install wrk, which generates the load: `apt-get install wrk`, or `brew install wrk`.")
    results, released = load(JSON), load(RELEASED)
    for name in names:
        measure: Callable[[], Awaitable[list[Row]]] = import_module(f"{__package__}.{name}").measure
        print(f"\n## {SECTIONS[name]}\n", flush=True)
        rows = asyncio.run(_awaited(measure()))
        results[name] = Section(SECTIONS[name], environment(), rows)
        print(table(rows), flush=True)
    if not os.environ.get("QUICK"):
        results = {name: results[name] for name in SECTIONS if name in results}
        save(results, JSON)
        PAGE.write_text(page(results, released), encoding="utf-8")
        chart(results, CHART)
        print(f"\nWrote {PAGE.name}, {JSON.name} and {CHART.name}.")


async def _awaited(rows: Awaitable[list[Row]]) -> list[Row]:
    return await rows


if __name__ == "__main__":
    main()
