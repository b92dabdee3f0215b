"""Tests of the examples, the README and the documentation."""
