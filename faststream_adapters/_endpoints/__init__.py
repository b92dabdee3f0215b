"""Endpoints that report health and metrics."""
