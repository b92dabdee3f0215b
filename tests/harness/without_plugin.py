"""A plugin of pytest under which FastStream has no FastAPI plugin, as from version 1.0 on."""

from __future__ import annotations

import sys
from importlib.abc import MetaPathFinder
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import ModuleType


class _Remover(MetaPathFinder):
    def find_spec(self, name: str, path: Sequence[str] | None, target: ModuleType | None = None) -> None:
        if name.startswith("faststream.") and name.endswith(".fastapi"):
            msg = f"No module named {name!r}"
            raise ModuleNotFoundError(msg, name=name)


sys.meta_path.insert(0, _Remover())
