"""Services on FastStream's FastAPI plugin, which the tests also run on the stand-in."""
