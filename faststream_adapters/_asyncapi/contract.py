"""Compare an AsyncAPI document with a file, or write the file.

Both sides are normalised first, so that only changes of the contract count: the order of keys and of
`required` has no meaning, and the addresses of servers depend on the environment.
"""

import json
import os
from collections.abc import Iterator
from difflib import unified_diff
from itertools import islice
from pathlib import Path
from typing import Any

from faststream_adapters._utils.extras import require

from .document import mapping

__all__ = ("UPDATE_VARIABLE", "compare_with_file")

UPDATE_VARIABLE = "FASTSTREAM_ADAPTERS_UPDATE_ASYNCAPI"
"""The environment variable that makes `compare_with_file` write the file if its value is 1."""

_SUFFIXES = (".json", ".yaml", ".yml")

# What is shown of a difference, so that the message stays readable when everything differs.
_MAX_PATHS = 20
_MAX_LINES = 100
_MAX_WIDTH = 200

# A valid host and a valid URL: tools that validate the file require both.
_ADDRESS = "localhost"


def compare_with_file(document: dict[str, Any], path: Path) -> None:
    """Compare the document with the file, or write the file if `UPDATE_VARIABLE` is 1.

    Raises:
        AssertionError: They differ.
        FileNotFoundError: The file does not exist, or, when it is to be written, its directory.
        ValueError: The file's name has another suffix, or it contains no JSON or YAML.
        ImportError: The file is YAML, and PyYAML is not installed.
    """
    if path.suffix not in _SUFFIXES:
        msg = f"The name of the file must end with {', '.join(_SUFFIXES)}, not {path.name!r}."
        raise ValueError(msg)
    document = _normalised(document)
    if os.environ.get(UPDATE_VARIABLE) == "1":
        # Encoded before the file is opened, so that an error leaves it as it was.
        path.write_bytes(_file_text(document, path).encode())
        return
    expected = _normalised(_load(path))
    if _text(expected) != _text(document):
        raise AssertionError(_describe(expected, document, path))


# --- the file ---


def _load(path: Path) -> Any:
    update = f"Run this test with {UPDATE_VARIABLE}=1 to write it."
    try:
        text = path.read_text(encoding="utf-8")
        return json.loads(text) if path.suffix == ".json" else _load_yaml(text)
    except FileNotFoundError:
        msg = f"{path} does not exist. {update}"
        raise FileNotFoundError(msg) from None
    except ValueError as error:
        msg = f"{path} cannot be read: {error}. {update}"
        raise ValueError(msg) from error


def _load_yaml(text: str) -> Any:
    yaml = require("yaml", "docs")
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ValueError(str(error)) from error


def _file_text(document: dict[str, Any], path: Path) -> str:
    if path.suffix == ".json":
        return _pretty(document) + "\n"
    text: str = require("yaml", "docs").safe_dump(document, allow_unicode=True)
    return text


def _pretty(document: object) -> str:
    return _text(document, indent=2)


def _text(node: object, indent: int | None = None) -> str:
    # YAML also has dates, which only a file can contain.
    return json.dumps(node, indent=indent, ensure_ascii=False, default=str)


# --- normalisation ---


def _normalised(document: Any) -> Any:
    """Copy the document without what may change although the contract does not."""
    document = _sorted(document)
    for parent in (mapping(document), mapping(mapping(document).get("components"))):
        for server in mapping(parent.get("servers")).values():
            for key in mapping(server).keys() & {"host", "url"}:
                server[key] = _ADDRESS
            mapping(server).pop("pathname", None)
    return document


def _sorted(node: Any) -> Any:
    if isinstance(node, list):
        return [_sorted(item) for item in node]
    if not isinstance(node, dict):
        return node
    # Keys of YAML can be numbers.
    copy = {str(key): _sorted(node[key]) for key in sorted(node, key=str)}
    # Sorted in schemas only: elsewhere a list of this name is data.
    if isinstance(copy.get("properties"), dict) and isinstance(copy.get("required"), list):
        copy["required"].sort(key=str)
    return copy


# --- the difference ---


def _describe(expected: Any, document: Any, path: Path) -> str:
    changes = [_shortened(change) for change in _changes(expected, document, "#")]
    lines = list(
        islice(
            unified_diff(
                _pretty(expected).split("\n"),
                _pretty(document).split("\n"),
                fromfile=str(path),
                tofile="the application",
                lineterm="",
            ),
            _MAX_LINES + 1,
        )
    )
    intended = f"If this is intended, run this test with {UPDATE_VARIABLE}=1, and commit the file."
    more_changes = [f"… and {len(changes) - _MAX_PATHS} more changes"] if len(changes) > _MAX_PATHS else []
    more_lines = ["… and more lines"] if len(lines) > _MAX_LINES else []
    return "\n".join(
        [
            f"The AsyncAPI document differs from {path}. {intended}",
            "",
            *changes[:_MAX_PATHS],
            *more_changes,
            "",
            *map(_shortened, lines[:_MAX_LINES]),
            *more_lines,
        ]
    )


def _changes(expected: Any, actual: Any, pointer: str) -> Iterator[str]:
    """Yield what differs, with JSON pointers as in the references of the document."""
    if isinstance(expected, dict) and isinstance(actual, dict):
        for key in sorted(expected.keys() | actual.keys()):
            inner = f"{pointer}/{key.replace('~', '~0').replace('/', '~1')}"
            if key not in actual:
                yield f"removed: {inner}"
            elif key not in expected:
                yield f"added:   {inner}"
            else:
                yield from _changes(expected[key], actual[key], inner)
    elif _text(expected) != _text(actual):
        yield f"changed: {pointer}"


def _shortened(line: str) -> str:
    return line if len(line) <= _MAX_WIDTH else line[:_MAX_WIDTH] + "…"
