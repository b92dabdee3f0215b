"""A package index shows the README with links that lead to the repository."""

import importlib.util
import re
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def hook() -> ModuleType:
    spec = importlib.util.spec_from_file_location("readme_hook", ROOT / "tools" / "readme.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def readme(hook: ModuleType, **urls: str) -> str:
    metadata: dict[str, Any] = {"version": "1.2.3", "urls": urls}
    hook.ReadmeHook(str(ROOT), {}).update(metadata)
    assert metadata["readme"]["content-type"] == "text/markdown"
    return str(metadata["readme"]["text"])


def test_without_a_repository_the_readme_is_unchanged(hook: ModuleType) -> None:
    assert readme(hook) == (ROOT / "README.md").read_text(encoding="utf-8")


def test_with_a_repository_no_link_is_relative(hook: ModuleType) -> None:
    text = readme(hook, Repository="https://code.example.com/owner/name/")

    targets = re.findall(r"\]\(([^)]+)\)", text)
    assert targets
    assert [target for target in targets if not target.startswith("https://")] == []


def test_the_links_lead_to_the_files_of_this_version(hook: ModuleType) -> None:
    text = readme(hook, Repository="https://code.example.com/owner/name")

    base = "https://code.example.com/owner/name"
    assert f"]({base}/blob/v1.2.3/docs/getting-started.md#install)" in text
    assert re.search(rf"!\[[^\]]+\]\({base}/raw/v1\.2\.3/docs/overview\.svg\)", text)


def test_links_inside_the_page_and_absolute_ones_stay(hook: ModuleType) -> None:
    text = "[a](#b) [c](https://example.com/d) [e](mailto:f@example.com) [g](h.md)"

    assert hook.with_absolute_links(text, "https://r", "v1") == (
        "[a](#b) [c](https://example.com/d) [e](mailto:f@example.com) [g](https://r/blob/v1/h.md)"
    )
