"""Publish messages to the declared channels over HTTP: an API for programs and a page for people."""
