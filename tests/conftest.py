import sys

from tests.support.sockets import sockets

__all__ = ["sockets"]

# The census and the faults read Linux's /proc and tcp_info.
collect_ignore = [] if sys.platform == "linux" else ["test_support.py"]
