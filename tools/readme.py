"""Give the package's metadata the README, with links that work outside the repository.

The build backend runs this. A package index shows the README on a page of its own, where a link relative to
the repository leads nowhere.
"""

import re
from pathlib import Path
from typing import Any

from hatchling.metadata.plugin.interface import MetadataHookInterface

_RELATIVE_LINK = re.compile(r"(?P<image>!?)\[(?P<text>[^\]]*)\]\((?!#|[a-z]+:)(?P<path>[^)\s]+)\)")


def with_absolute_links(text: str, repository: str, tag: str) -> str:
    """Return Markdown whose relative links lead to the repository.

    Args:
        text: The Markdown.
        repository: The repository's URL.
        tag: The tag, which fixes the version of the linked files.
    """

    def absolute(link: re.Match[str]) -> str:
        view = "raw" if link["image"] else "blob"
        return f"{link['image']}[{link['text']}]({repository.rstrip('/')}/{view}/{tag}/{link['path']})"

    return _RELATIVE_LINK.sub(absolute, text)


class ReadmeHook(MetadataHookInterface):
    """Sets the metadata's `readme`."""

    def update(self, metadata: dict[str, Any]) -> None:
        """Set the README. While there is no repository, its links stay relative."""
        text = Path(self.root, "README.md").read_text(encoding="utf-8")
        if repository := metadata.get("urls", {}).get("Repository"):
            text = with_absolute_links(text, repository, f"v{metadata['version']}")
        metadata["readme"] = {"content-type": "text/markdown", "text": text}
