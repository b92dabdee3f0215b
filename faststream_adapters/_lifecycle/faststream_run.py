"""The command `faststream run` refuses an application of a web framework without saying what runs it."""

import atexit
import inspect
import sys
from operator import attrgetter
from pathlib import Path

from faststream_adapters._compat.faststream import Application


def explain_refusal() -> None:
    """If this process is `faststream run`, say at its end what runs an application that it has refused.

    FastStream's command has no hook between the import of an application and the refusal.
    """
    program, command, *_ = (*sys.argv, "", "")
    if "faststream" in Path(program).parts[-2:] and command == "run":
        # Not once for each lifespan.
        atexit.unregister(_explain)
        atexit.register(_explain)


def _explain() -> None:
    for word in sys.argv[2:]:
        module, _, name = word.partition(":")
        try:
            app = attrgetter(name)(sys.modules[module])
        except (KeyError, AttributeError):
            continue
        # Not a factory or the class of an event loop.
        if callable(app) and not isinstance(app, Application | type) and not inspect.isroutine(app):
            sys.stderr.write(
                f"Error: {word} is a {type(app).__name__}, and `faststream run` takes an AsgiFastStream or a "
                f"FastStream: run `uvicorn {word}` instead.\n"
            )
