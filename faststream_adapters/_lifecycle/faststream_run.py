"""The command `faststream run` refuses an application of a web framework without saying what runs it."""

import atexit
import inspect
import sys
from operator import attrgetter
from pathlib import Path

from faststream_adapters._compat.faststream import Application, BrokerUsecase


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
    # Imports this module.
    from .lifespan import BrokerLifespan

    for word in sys.argv[2:]:
        module, _, name = word.partition(":")
        try:
            app = attrgetter(name)(sys.modules[module])
        except (KeyError, AttributeError):
            continue
        if isinstance(app, BrokerUsecase | BrokerLifespan):
            advice = "make one of its broker, as in `app = AsgiFastStream(broker)`"
        # Not a factory or the class of an event loop.
        elif callable(app) and not isinstance(app, Application | type) and not inspect.isroutine(app):
            advice = f"run `uvicorn {word}` instead"
        else:
            continue
        sys.stderr.write(
            f"Error: {word} is a {type(app).__name__}, and `faststream run` takes an AsgiFastStream or a "
            f"FastStream: {advice}.\n"
        )
