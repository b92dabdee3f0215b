"""Every server, with one process and with four workers, serving every kind of application."""
