"""For authors of drivers: the base class and the codes that its methods return. Provisional: it may change.

See "Write a driver" in the documentation.
"""

from ._brokers.codes import BrokerCode, SubscriberCode
from ._brokers.driver import Driver, Mismatch
from ._utils.tracebacks import find_in_traceback

__all__ = ("BrokerCode", "Driver", "Mismatch", "SubscriberCode", "find_in_traceback")
