"""Benchmarks: this package beside a bare ASGI app and `faststream.asgi`, measured in one run."""
