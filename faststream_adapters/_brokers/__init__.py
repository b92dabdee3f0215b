"""Drivers: one interface to the broker clients for the life cycle and the health checks."""
