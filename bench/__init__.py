"""Benchmarks: this package beside a bare ASGI app and beside `faststream.asgi`, in one run."""
