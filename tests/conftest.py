import sys

import pytest
from hypothesis import HealthCheck, settings

from tests.support import multipath
from tests.support.sockets import sockets
from tests.support.tidiness import known_to_git, strays

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


def pytest_sessionfinish(session):
    """Fail a run that has left files in the folders of the project; once, not in each worker."""
    left = [] if hasattr(session.config, "workerinput") else strays(known_to_git() or [])
    if left:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
        session.config.get_terminal_writer().line(f"\nFiles were left behind: {', '.join(left)}", red=True)
