import sys

from hypothesis import HealthCheck, settings

from tests.support import multipath
from tests.support.sockets import sockets

__all__ = ["sockets"]

# The census and the faults read Linux's /proc and tcp_info.
collect_ignore = [] if sys.platform == "linux" else ["test_support.py"]

# By default Hypothesis gives each example 200 ms, and the making of the first ten some seconds. It reads a wall clock,
# which also counts what other processes do meanwhile: on a busy machine an example of 1 ms is called a failure, and a
# minute goes into looking for a smaller one. What has to be fast has a test marked `alone`.
settings.register_profile("wall clocks do not count", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("wall clocks do not count")

# Before any test module imports the public names.
if multipath.SWITCHED_ON:
    multipath.ask_for_multipath()


def pytest_collection_modifyitems(items):
    if multipath.SWITCHED_ON:
        multipath.mark_differences(items)
