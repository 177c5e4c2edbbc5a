"""The pytest plugin by another name, as in `pytest -p trio_connect.testing.plugin`; see `pytest_trio_connect`."""

from pytest_trio_connect import *  # noqa: F403 - whatever hooks it has
