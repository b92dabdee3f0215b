"""The documentation as a site: it builds without warnings, and every link inside it leads somewhere."""

from __future__ import annotations

import subprocess
import sys
from importlib.util import find_spec
from typing import TYPE_CHECKING

import pytest

from tests.docs.blocks import ROOT

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = [
    pytest.mark.full,
    pytest.mark.skipif(find_spec("sphinx") is None, reason="There is no Sphinx: `make docs` installs it."),
    pytest.mark.timeout(300),
]


def run(*arguments: str) -> None:
    """Run Python, and fail with what it prints if it fails or prints anything."""
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        timeout=280,
    )
    assert (done.returncode, done.stdout) == (0, "")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the directory of the site, built as by `make docs`."""
    directory = tmp_path_factory.mktemp("site")
    run("-m", "sphinx", "--quiet", "--fail-on-warning", "--keep-going", "docs", str(directory))
    return directory


def test_every_link_leads_somewhere(site: Path) -> None:
    run("tools/check_site.py", str(site))


def test_what_the_pages_link_to_is_there_for_models_too(site: Path) -> None:
    text = (site / "llms-full.txt").read_text(encoding="utf-8")
    for path in ("examples/kubernetes/deployment.yaml", "benchmarks.svg", "hosts/fastapi.md"):
        assert f"]({path})" in text
        assert (site / path).is_file()
