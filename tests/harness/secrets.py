"""Secrets, brokers with one in each position that a client accepts, and a search for them in output."""

from __future__ import annotations

import string
from random import Random

from hypothesis import strategies as st

from tests.harness.brokers import HARNESSES

RUN = 6
"""So many consecutive characters of a secret must not be shown."""

_CHARACTERS = string.ascii_letters + string.digits + "@:/?#&=%+'\" \\<>{}[]|,;" * 2 + "äß€"

# Not `st.text()`, which likes the words that the code contains, and these occur in output for other reasons.
SECRETS = st.integers(0, 2**32).map(lambda seed: "".join(Random(seed).choices(_CHARACTERS, k=12 + seed % 12)))
"""Random secrets."""


def shown_part(secret: str, output: str) -> str | None:
    """Return a part of a secret that some output contains, or None."""
    parts = (secret[start : start + RUN] for start in range(len(secret) - RUN + 1))
    return next((part for part in parts if part in output), None)


POSITIONS = {
    f"{name}-{position}": make
    for name, harness in HARNESSES.items()
    for position, make in harness.secrets().items()
}
"""Make a broker from a secret and an address, by the position of the secret."""

UNESCAPED = {
    f"{name}-{position}": make
    for name, harness in HARNESSES.items()
    for position, make in harness.unescaped_secrets().items()
}
"""The same for secrets that the application has not escaped, although this is required."""
