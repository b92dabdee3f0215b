"""Subjects with wildcards: which contain, and which overlap, others."""

import pytest

from faststream_adapters._brokers.nats.consumers import contains, overlap


@pytest.mark.parametrize(
    ("pattern", "subject", "expected"),
    [
        ("a", "a", True),
        ("a", "b", False),
        ("a", "a.b", False),
        ("a.b", "a", False),
        ("a.*", "a.b", True),
        ("a.*", "a.*", True),
        ("a.b", "a.*", False),
        ("a.*", "a.>", False),
        ("a.>", "a.b", True),
        ("a.>", "a.b.c", True),
        ("a.>", "a.*", True),
        ("a.>", "a.>", True),
        ("a.>", "a", False),
        ("a.>", "b.c", False),
        ("*.>", "a.>", True),
        (">", "a", True),
        (">", "a.b.>", True),
    ],
)
def test_a_pattern_contains_a_subject(pattern: str, subject: str, *, expected: bool) -> None:
    assert contains(pattern, subject) is expected


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        ("a", "a", True),
        ("a", "b", False),
        ("a.*", "*.b", True),
        ("a.*", "b.*", False),
        ("a.>", "a.b.c", True),
        ("a.>", "a", False),
        ("a.*", "a.b.c", False),
        (">", "a.b", True),
    ],
)
def test_two_subjects_overlap(one: str, other: str, *, expected: bool) -> None:
    assert overlap(one, other) is expected
    assert overlap(other, one) is expected
