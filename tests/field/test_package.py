"""Numbers 20, 34, 35, 36, 37, 38 and 41 of the field reports: queues, the virtual network, the plugin, the package."""

from __future__ import annotations

import re
import subprocess
import sys
from importlib.metadata import version

import trio_connect


def test_field_37_the_package_says_its_version():
    """`trio_connect.__version__` is what was installed."""
    assert re.fullmatch(r"\d+\.\d+\.\d+\S*", trio_connect.__version__)
    assert version("trio-connect") == trio_connect.__version__


def test_field_37_testing_is_an_attribute():
    """`import trio_connect` is enough for `trio_connect.testing`, which loads when it is first asked for."""
    code = "import sys, trio_connect; assert 'trio_connect.testing' not in sys.modules; trio_connect.testing.run"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=30)
    assert "testing" in dir(trio_connect)
