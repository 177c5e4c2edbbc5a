import sys

from tests.support.doors import door

__all__ = ["door"]

# The census and the faults read Linux's /proc and tcp_info.
collect_ignore = [] if sys.platform == "linux" else ["test_support.py"]
