import gc
import os
import sys
from pathlib import Path

import pytest
import trio.testing
from hypothesis import HealthCheck, settings

from tests.support import examples, multipath
from tests.support.sockets import sockets
from tests.support.sweep import share_of_modes
from tests.support.tidiness import known_to_git, strays

__all__ = ["sockets"]

# The census and the faults read Linux's /proc and tcp_info.
collect_ignore = [] if sys.platform == "linux" else ["test_support.py"]

# By default Hypothesis gives each example 200 ms, and the making of the first ten some seconds. It reads a wall clock,
# which also counts what other processes do meanwhile: on a busy machine an example of 1 ms is called a failure, and a
# minute goes into looking for a smaller one. What has to be fast has a test marked `alone`.
settings.register_profile(
    "wall clocks do not count",
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
    # Hypothesis takes a hundred.
    max_examples=examples(40, 400),
)
settings.load_profile("wall clocks do not count")

# OpenSSL loads one authority, which has issued nothing, instead of the hundred and more of the machine: 2 ms instead of
# 48 for each context that a test, a client of others or a program that is started makes with what the system trusts.
os.environ["SSL_CERT_FILE"] = str(Path(__file__).parent / "support" / "authority.pem")

# Before any test module imports the public names.
if multipath.SWITCHED_ON:
    multipath.ask_for_multipath()


@pytest.fixture
def loopback_clock():
    """Return a clock that jumps, but over nothing that loopback is about to deliver: the kernel may leave it for later.

    `autojump_clock` jumps in the pass in which nothing is there, and a deadline comes before the answer.
    """
    return trio.testing.MockClock(autojump_threshold=0.05)


@pytest.fixture
def modes(request):
    """In which modes to sweep this combination of parameters: its share of them."""
    return share_of_modes(*request.node.callspec.indices.values())


@pytest.hookimpl(wrapper=True)
def pytest_collection():
    """Keep the collector out of collecting, and what was collected out of every collection after that.

    Nine thousand tests and all modules stay to the end; to go through them again and again took a tenth of the suite.
    """
    gc.disable()
    try:
        return (yield)
    finally:
        gc.enable()
        gc.collect()
        gc.freeze()


def pytest_ignore_collect(collection_path, config):
    """Have `-m alone` import only what has such a test: a dozen modules of two hundred."""
    if config.option.markexpr == "alone" and collection_path.name.startswith("test_"):
        return True if "pytest.mark.alone" not in collection_path.read_text(encoding="utf-8") else None
    return None


def pytest_collection_modifyitems(items):
    if multipath.SWITCHED_ON:
        multipath.mark_differences(items)


def pytest_sessionfinish(session):
    """Fail a run that has left files in the folders of the project; once, not in each worker."""
    left = [] if hasattr(session.config, "workerinput") else strays(known_to_git() or [])
    if left:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
        session.config.get_terminal_writer().line(f"\nFiles were left behind: {', '.join(left)}", red=True)
