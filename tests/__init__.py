"""The tests of faststream_adapters."""
