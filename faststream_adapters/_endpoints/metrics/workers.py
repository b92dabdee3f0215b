"""Collect the metrics of several worker processes from the files that prometheus_client writes for each.

Workers of several containers may share the directory. Their process ids mean nothing outside their container,
so a worker counts as dead when no process has its file open for writing any more.
"""

import os
import re
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from faststream.exceptions import SetupError

from .snapshot import merge_workers

if TYPE_CHECKING:
    from prometheus_client import Metric

DIRECTORY_VARIABLE = "PROMETHEUS_MULTIPROC_DIR"

_FILE = re.compile(r"(?:counter|histogram|summary|gauge_(?P<mode>[a-z]+))_(?P<pid>.+)\.db", re.DOTALL)
_IN_PROCESS_SUFFIX = "_received_messages_in_process"
"""The end of the name of FastStream's gauge of messages in process.

The gauge's mode is not one of the `live` modes, so prometheus_client would report it for dead workers too.
"""


class WorkerCollector:
    """Collects the metrics of all workers, without the live gauges of dead workers.

    What cannot be read is left out, and logged once.

    Args:
        directory: The directory of prometheus_client's files.
        log: Logs what cannot be read, with its name and the reason.

    Raises:
        SetupError: The directory does not exist.
    """

    def __init__(self, directory: str, log: Callable[[str, str], object]) -> None:
        self._directory = Path(directory)
        if not self._directory.is_dir():
            msg = (
                f"{DIRECTORY_VARIABLE} is set, but it is not an existing directory: "
                "create an empty one before the server starts."
            )
            raise SetupError(msg)
        self._log = log
        self._logged: set[str] = set()

    def collect(self) -> "Iterator[Metric]":
        """Yield the merged metrics of all workers."""
        broken: dict[str, str] = {}
        dead: set[str] = set()
        metrics = _merge([*self._files(dead, broken)], broken)
        for name in broken.keys() - self._logged:
            self._log(name, broken[name])
        self._logged = {*broken}
        for metric in metrics:
            merge_workers(metric)
            if metric.name.endswith(_IN_PROCESS_SUFFIX):
                metric.samples = [sample for sample in metric.samples if sample.labels.get("pid") not in dead]
            if metric.samples:
                yield metric

    def _files(self, dead: set[str], broken: dict[str, str]) -> Iterator[Path]:
        """Yield the files to read, and remove the live gauges of dead workers.

        Args:
            dead: Gets the process ids of the dead workers that have gauges.
            broken: Gets what cannot be read, each with the reason.
        """
        try:
            files = [path for path in self._directory.iterdir() if path.suffix == ".db"]
        except OSError as error:
            broken["."] = type(error).__name__
            return
        for path in files:
            # Another worker that is being scraped may have removed the file.
            if os.path.lexists(path) and not os.path.isfile(path):  # noqa: PTH113 (Path.is_file raises errors)
                # Opening a named pipe would block.
                broken[path.name] = "not a regular file"
            elif (name := _FILE.fullmatch(path.name)) is None:
                broken[path.name] = "not a name of prometheus_client"
            elif name["mode"] is None or _has_writer(path, name["pid"]):
                yield path
            elif name["mode"].startswith("live"):
                with suppress(OSError):
                    path.unlink()
            else:
                dead.add(name["pid"])
                yield path


def _merge(files: list[Path], broken: dict[str, str]) -> "list[Metric]":
    """Merge the files that can be read; add the others to `broken`."""
    from prometheus_client.multiprocess import MultiProcessCollector

    def merge(*paths: Path) -> "list[Metric]":
        return [*MultiProcessCollector.merge([*map(str, paths)])]  # type: ignore[no-untyped-call]

    with suppress(Exception):
        return merge(*files)
    readable = []
    for path in files:
        try:
            merge(path)
        except FileNotFoundError:
            # Another worker that is being scraped has removed it.
            continue
        except Exception as error:  # noqa: BLE001 (prometheus_client does not validate what it reads)
            broken[path.name] = type(error).__name__
        else:
            readable.append(path)
    return merge(*readable)


def _has_writer(path: Path, pid: str) -> bool:
    """Return whether a process has the file open for writing, in whichever container.

    Linux grants a read lease only if there is none. Where it cannot tell, because the file system has no
    leases or the file belongs to another user, the result is True.

    Source: fcntl(2), "Leases".
    """
    if sys.platform != "linux":  # pragma: no cover (only Linux has leases)
        return _is_running(pid)
    import fcntl

    try:
        descriptor = os.open(path, os.O_RDONLY)
    except OSError:
        return True
    try:
        # A process that opens the file at this moment waits until the lease ends, and this process gets a
        # signal. The default, SIGIO, would end it; SIGURG is ignored.
        fcntl.fcntl(descriptor, fcntl.F_SETSIG, signal.SIGURG)
        fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_RDLCK)
        fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_UNLCK)
    except OSError:
        return True
    finally:
        os.close(descriptor)
    return False


def _is_running(pid: str) -> bool:  # pragma: no cover (not used on Linux)
    # On Windows, signal 0 is Ctrl-C.
    if os.name == "posix" and pid.isdecimal():
        try:
            os.kill(int(pid), 0)
        except ProcessLookupError:
            return False
        except PermissionError:
            pass
    return True
