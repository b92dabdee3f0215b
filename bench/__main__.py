"""Run the benchmarks: all sections, or those named on the command line; `page` only writes the page again."""

import asyncio
import logging
import os
import platform
import shutil
import sys
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from importlib import import_module
from importlib.metadata import version

from .measure import Row
from .report import CHART, JSON, PAGE, Section, chart, load, replace, table, write_page

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


def environment(seconds: float) -> str:
    """Return a sentence with the date, the duration, the versions and the number of cores."""
    packages = ("faststream", "uvicorn", "uvloop", "httptools", "granian", "fastapi", "litestar", "quart")
    versions = ", ".join(f"{name} {version(name)}" for name in packages)
    where = f"Python {platform.python_version()} on {os.cpu_count()} cores"
    return f"Measured on {datetime.now(UTC):%Y-%m-%d} in {seconds:.0f} s with {where}: {versions}."


def main() -> None:
    """Measure and print the sections, and replace them on the page, in the chart and in the JSON file."""
    logging.disable(logging.CRITICAL)
    names = sys.argv[1:] or list(SECTIONS)
    if names == ["page"]:
        write_page()
        chart(load(JSON), CHART)
        return
    if unknown := set(names) - set(SECTIONS):
        sys.exit(
            f"Unknown section: {', '.join(unknown)}. Choose from {', '.join(SECTIONS)}, or omit for all; "
            "`page` alone writes the page again."
        )
    if "under_load" in names and shutil.which("wrk") is None:
        sys.exit("Install wrk, which generates the load: `apt-get install wrk`, or `brew install wrk`.")
    for name in names:
        measure: Callable[[], Awaitable[list[Row]]] = import_module(f"{__package__}.{name}").measure
        print(f"\n## {SECTIONS[name]}\n", flush=True)
        start = time.monotonic()
        rows = asyncio.run(_awaited(measure()))
        section = Section(SECTIONS[name], environment(time.monotonic() - start), rows)
        print(f"{section.environment}\n\n{table(rows)}", flush=True)
        if not os.environ.get("QUICK"):
            # After each section: a run that fails in a later one does not lose those that it has measured.
            replace(name, section, SECTIONS)
            print(f"\nWrote {PAGE.name} and {JSON.name}.", flush=True)
    if not os.environ.get("QUICK"):
        # At the end: what matplotlib loads would slow down the garbage collector in the measurements.
        chart(load(JSON), CHART)
        print(f"Wrote {CHART.name}.")


async def _awaited(rows: Awaitable[list[Row]]) -> list[Row]:
    return await rows


if __name__ == "__main__":
    main()
