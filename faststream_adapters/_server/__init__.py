"""Run uvicorn on sockets that this package opens."""
