"""A stand-in for FastStream's deprecated FastAPI plugin, with one module for each client."""
