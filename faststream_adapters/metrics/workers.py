"""The metrics of several worker processes, from the files that prometheus_client keeps for each of them."""

import os
import re
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from faststream.exceptions import SetupError

if TYPE_CHECKING:
    from prometheus_client import Metric

VARIABLE = "PROMETHEUS_MULTIPROC_DIR"

_FILE = r"(?P<kind>\w+)_(?P<pid>\d+)\.db"
_IN_PROCESS = "_received_messages_in_process"
"""The end of the name of FastStream's gauge, which prometheus_client would show for dead workers too."""


class Workers:
    """Collects the metrics of all workers, but not what only holds while a worker lives of one that is dead.

    Args:
        directory: Where the files are.

    Raises:
        SetupError: There is no such directory.
    """

    def __init__(self, directory: str) -> None:
        if not Path(directory).is_dir():
            msg = f"{VARIABLE} is set, but it names no directory: create it, empty, before the server starts."
            raise SetupError(msg)
        self._directory = directory

    def collect(self) -> "Iterator[Metric]":
        """Yield the metrics of all workers together."""
        from prometheus_client.multiprocess import MultiProcessCollector

        dead = self._bury()
        metrics: Iterable[Metric] = MultiProcessCollector(None, self._directory).collect()  # type: ignore[no-untyped-call]
        for metric in metrics:
            if metric.name.endswith(_IN_PROCESS):
                metric.samples = [each for each in metric.samples if each.labels.get("pid") not in dead]
            if metric.samples:
                yield metric

    def _bury(self) -> set[str]:
        """Remove what dead workers said of themselves while they lived; return their process ids."""
        from prometheus_client.multiprocess import mark_process_dead

        names = (file.name for file in Path(self._directory).iterdir())
        files = [match for name in names if (match := re.fullmatch(_FILE, name))]
        dead = {pid for pid in {file["pid"] for file in files} if _is_dead(int(pid))}
        for pid in {file["pid"] for file in files if file["kind"].startswith("gauge_live")} & dead:
            # Another worker that is scraped at the same time may be faster.
            with suppress(FileNotFoundError):
                mark_process_dead(pid, self._directory)  # type: ignore[no-untyped-call]
        return dead


def _is_dead(pid: int) -> bool:
    if os.name != "posix":  # pragma: no cover (elsewhere this would send Ctrl-C)
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    except PermissionError:  # pragma: no cover (another user's process has the number now)
        return False
    return False
