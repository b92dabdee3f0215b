"""ASGI servers, with one process and with four workers, serving every kind of application."""
