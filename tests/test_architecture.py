"""The architecture: which module may import which, what an import costs, and how the project speaks of itself."""

from __future__ import annotations

import ast
import inspect
import json
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Final

import pytest

import trio_connect
from tests.import_rules import (
    DOORS,
    OPTIONAL,
    OUTSIDERS,
    Shape,
    When,
    circles,
    imports_of,
    private_uses_of_trio,
    read_tree,
    shape_of,
    uses_of_sleep,
    violations,
)
from tests.support.pace import least
from tests.support.tidiness import known_to_git, our_files, strays

ROOT = Path(__file__).parent.parent
SRC = ROOT / "src"


def python_files(*folders: str) -> list[Path]:
    return [path for folder in folders for path in sorted((ROOT / folder).rglob("*.py"))]


# --- the layers -------------------------------------------------------------------------------------------------------


def test_every_import_keeps_to_its_layer():
    assert violations(SRC) == []


def build(tmp_path: Path, files: dict[str, str]) -> Path:
    """A small package that keeps every rule, and over it the files that a test wants to see judged."""
    lawful = {
        "__init__.py": "from ._net.connect import connect as connect\n",
        "_endpoint.py": "import socket\nimport attrs\nFAMILY = socket.AF_INET6\n",
        "_errors.py": "import trio\nfrom ._endpoint import FAMILY\n",
        "_engine/__init__.py": "",
        "_engine/race.py": "import math\nfrom .._endpoint import FAMILY\nfrom . import order\n",
        "_engine/order.py": "import attrs\n",
        "_net/__init__.py": "",
        "_net/connect.py": "import trio\nfrom .._engine.race import FAMILY\nfrom .. import _errors\nconnect = 1\n",
        "queues.py": "import trio\nfrom ._net.connect import connect\n",
        "outbound.py": "from . import connect\n",
        "momentum.py": "from . import outbound\n",
        "sctp/__init__.py": "from ._wire import pack\n",
        "sctp/_wire.py": "import struct\npack = struct.pack\n",
        "testing/__init__.py": "from .. import connect\nfrom ._network import net\n",
        "testing/_network.py": "import pytest\nfrom trio_connect import queues\nnet = 1\n",
        "adapters/__init__.py": "",
        "adapters/anyio.py": "import anyio\nfrom .. import connect\n",
        "cli/__init__.py": "",
        "cli/probe.py": "import argparse\nimport trio_connect\ntrio_connect.connect\n",
    }
    for name, text in {**lawful, **files}.items():
        path = tmp_path / "trio_connect" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return tmp_path


def test_checker_passes_a_lawful_tree(tmp_path):
    assert violations(build(tmp_path, {})) == []


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        # Rule 1: what is pure.
        ("_policy.py", "import trio\n", "PURE imports trio at import"),
        ("_policy.py", "import trio.testing\n", "PURE imports trio.testing at import"),
        ("_engine/race.py", "def late():\n    from trio import sleep\n", "PURE imports trio in a function"),
        ("_engine/race.py", "import time\n", "PURE imports time at import"),
        ("_engine/race.py", "import random\n", "PURE imports random at import"),
        ("_engine/race.py", "class A:\n    def f(self):\n        import os\n", "PURE imports os in a function"),
        ("_engine/race.py", "try:\n    import datetime\nexcept E:\n    pass\n", "PURE imports datetime at import"),
        ("_engine/race.py", "from .. import _errors\n", "PURE imports trio_connect._errors (EDGE) at import"),
        ("_engine/race.py", "from .._net import connect\n", "PURE imports trio_connect._net.connect (_net) at import"),
        ("_engine/race.py", "from trio_connect import connect\n", "PURE imports trio_connect (public names)"),
        ("_engine/race.py", "x = __import__('trio')\n", "PURE imports trio at import"),
        ("_engine/__init__.py", "import trio\n", "PURE imports trio at import"),
        ("sctp/_wire.py", "import trio\n", "PURE imports trio at import"),
        ("queues/_table.py", "import trio\n", "PURE imports trio at import"),
        ("queues/_states.py", "from . import connect\n", "PURE imports trio_connect.queues (front door) at import"),
        ("sctp/_wire.py", "from . import pack\n", "PURE imports trio_connect.sctp (front door) at import"),
        ("_report.py", "import socket\nx = socket.socket()\n", "PURE uses socket.socket, which is not a constant"),
        ("_report.py", "from socket import getaddrinfo\n", "PURE takes socket.getaddrinfo"),
        ("_report.py", "import socket as s\nf(s)\n", "PURE passes the socket module around"),
        ("_report.py", "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import trio\n", "for annotations"),
        ("_report.py", "import rich\n", "PURE imports rich at import"),
        # Rule 2: who stands on whom.
        ("_errors.py", "from ._net import connect\n", "EDGE imports trio_connect._net.connect (_net) at import"),
        ("_deadline.py", "def f():\n    from . import queues\n", "EDGE imports trio_connect.queues (front door)"),
        ("_net/connect.py", "from .. import queues\n", "_net imports trio_connect.queues (front door) at import"),
        ("_net/connect.py", "from ..sctp._wire import pack\n", "_net imports trio_connect.sctp (front door)"),
        ("_net/connect.py", "from .. import connect\n", "_net imports trio_connect (public names) at import"),
        ("queues.py", "from . import outbound\n", "front door queues imports front door outbound"),
        ("queues.py", "import importlib\nx = importlib.import_module('.sctp', 'trio_connect')\n", "front door sctp"),
        ("queues.py", "import importlib\nx = importlib.import_module('trio_connect.sctp')\n", "front door sctp"),
        ("libdill.py", "import trio_connect.sctp._wire\n", "front door libdill imports front door sctp"),
        ("momentum.py", "from .queues import connect\n", "front door momentum imports front door queues"),
        ("outbound.py", "from . import momentum\n", "front door outbound imports front door momentum"),
        ("__init__.py", "from . import queues\n", "public names imports trio_connect.queues (front door) at import"),
        ("_net/connect.py", "from .. import testing\n", "_net imports trio_connect.testing (outside) at import"),
        ("queues.py", "def f():\n    from .cli import probe\n", "front door imports trio_connect.cli.probe (outside)"),
        # Rule 3: outsiders use public names only.
        ("testing/_network.py", "from .._net import connect\n", "only public names here"),
        ("testing/_network.py", "import trio_connect._errors\n", "only public names here"),
        ("testing/_network.py", "def f():\n    from .. import _errors\n", "only public names here"),
        ("adapters/anyio.py", "from ..sctp import _wire\n", "only public names here"),
        ("cli/probe.py", "import trio_connect\ntrio_connect._net.connect\n", "reaches for trio_connect._net"),
        ("cli/probe.py", "from trio_connect import Hidden\n", "does not publish"),
        ("cli/probe.py", "from ..testing import net\n", "testing is for users' tests"),
        # Rule 4, and what may be imported from elsewhere at all.
        ("_net/connect.py", "import dns.resolver\n", "imports the optional dns.resolver at import"),
        ("_errors.py", "def f():\n    import rich\n", "imports the optional rich"),
        ("cli/probe.py", "import dns\n", "imports the optional dns"),
        ("queues.py", "import requests\n", "imports requests, which is no dependency"),
        ("queues.py", "import typing_extensions\n", "imports typing_extensions, which is no dependency"),
        # A module is placed on purpose, and an import names something.
        ("_helpers.py", "", "_helpers: has no layer"),
        ("utils/__init__.py", "", "utils: has no layer"),
        ("_engine/race.py", "from .gone import x\n", "imports trio_connect._engine.gone, which does not exist"),
    ],
)  # fmt: skip
def test_checker_sees(tmp_path, name, text, expected):
    found = violations(build(tmp_path, {name: text}))
    assert any(expected in line for line in found), found


@pytest.mark.parametrize(
    ("name", "text"),
    [
        (
            "__init__.py",
            "__all__ = ['connect']\nconnect = 1\ndef __getattr__(name):\n    from . import queues\n",
        ),
        (
            "_engine/race.py",
            "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from random import Random\n",
        ),
        (
            "_engine/race.py",
            "import socket\nx = getattr(socket, 'IPPROTO_MPTCP', 262)\ny: socket.AddressFamily\n",
        ),
        ("_engine/order.py", "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import typing_extensions\n"),
        ("_net/connect.py", "connect = FAMILY = 1\ndef dns():\n    import dns.resolver\n"),
    ],
)
def test_checker_allows(tmp_path, name, text):
    assert violations(build(tmp_path, {name: text})) == []


def test_a_chain_of_pure_modules_cannot_hide_an_impure_one(tmp_path):
    tree = {"_engine/race.py": "from . import order\n", "_engine/order.py": "from .. import _errors\n"}
    assert violations(build(tmp_path, tree)) == [
        "trio_connect._engine.order:1: PURE imports trio_connect._errors (EDGE) at import"
    ]


def test_no_modules_need_one_another_in_a_circle():
    assert circles(SRC) == []


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("_engine/order.py", "import attrs\nfrom . import race\n"),
        ("_engine/order.py", "def late():\n    from .race import FAMILY\n"),
        ("_engine/order.py", "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from .race import FAMILY\n"),
    ],
)
def test_checker_sees_circles(tmp_path, name, text):
    assert circles(build(tmp_path / "lawful", {})) == []
    found = circles(build(tmp_path, {name: text}))
    assert found == [
        "trio_connect._engine.order: in a circle with trio_connect._engine.race",
        "trio_connect._engine.race: in a circle with trio_connect._engine.order",
    ]


def test_the_folders_of_net_stand_on_one_another_in_layers():
    shape = shape_of(SRC, "_net")
    print(shape)  # with -s: how the folder has grown
    assert shape.circle == ()


def test_checker_sees_folders_that_need_one_another_although_no_two_modules_do(tmp_path):
    tree = {
        "_net/__init__.py": "",
        "_net/race/__init__.py": "",
        "_net/race/driver.py": "from ..streams import tcp\n",
        "_net/race/reports.py": "",
        "_net/streams/__init__.py": "",
        "_net/streams/tcp.py": "def f():\n    from ..race import reports\n",
        "_net/connect.py": "from .race.driver import x\nfrom .race import reports\n",
    }
    src = build(tmp_path, tree)
    assert circles(src) == []
    assert shape_of(src, "_net") == Shape(parts=3, arrows=3, layers=0, circle=("connect", "race", "streams"))
    (src / "trio_connect/_net/streams/tcp.py").write_text("")
    assert shape_of(src, "_net") == Shape(parts=3, arrows=2, layers=3, circle=())


def test_optional_dependencies_are_all_known():
    import_names = {"dnspython": "dns", "python-socks": "python_socks", "opentelemetry-api": "opentelemetry"}
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"].get("optional-dependencies", {})
    declared = {re.split(r"[^\w.-]", line)[0] for lines in extras.values() for line in lines}
    assert {import_names.get(name, name) for name in declared} <= OPTIONAL


# --- what an import costs ---------------------------------------------------------------------------------------------

# A finder asked before all others sees also imports that fail because the package is not installed.
WATCH = """
import json, sys
asked = set()
class Watch:
    def find_spec(self, name, path=None, target=None):
        asked.add(name)
sys.meta_path.insert(0, Watch())
import trio_connect
print(json.dumps(sorted(asked)))
"""


def fresh_python(*arguments: str) -> subprocess.CompletedProcess[str]:
    # Measuring coverage would be measured too.
    env = {k: v for k, v in os.environ.items() if not k.startswith(("COVERAGE_", "COV_", "PYTHON"))}
    return subprocess.run([sys.executable, *arguments], env=env, capture_output=True, text=True, timeout=30, check=True)


def test_import_loads_no_optional_dependency_and_no_front_door():
    asked = set(json.loads(fresh_python("-c", WATCH).stdout))
    assert "trio_connect" in asked
    assert {name for name in asked if name.split(".")[0] in OPTIONAL} == set()
    # Races, listeners and lookups are for those who ask for them.
    assert not asked & {
        f"trio_connect.{name}"
        for name in ("_answer", "_policy", "_race_messages", "_engine.race", "_net.listeners", "_net.names.resolve")
    }
    upstairs = DOORS | OUTSIDERS
    assert {name for name in asked if name.startswith("trio_connect.") and name.split(".")[1] in upstairs} == set()


IMPORT = f"""
import sys
sys.path.append({str(ROOT)!r})
import trio, attrs
from tests.support.pace import PacedClock, running_tasks
clock = PacedClock(slowness=running_tasks)  # an import makes system calls and touches much memory
import trio_connect
clock.lap()
print(clock.seconds * 1000)
"""


@pytest.mark.alone
def test_import_costs_at_most_15_ms_on_top_of_trio():
    fresh_python("-c", IMPORT)  # writes the byte code
    bound = 15.0
    # What runs beside it only adds.
    assert least(lambda: float(fresh_python("-c", IMPORT).stdout), bound=bound, attempts=10) <= bound


# --- the public names -------------------------------------------------------------------------------------------------


PUBLIC: Final[list[str]] = vars(trio_connect)["__all__"]


def test_all_lists_every_public_name_in_order():
    listed = PUBLIC
    assert listed == sorted(set(listed))
    present = {
        name
        for name, value in vars(trio_connect).items()
        if not name.startswith("_") and name != "annotations" and not inspect.ismodule(value)
    }
    assert present <= set(listed)
    for name in listed:
        assert hasattr(trio_connect, name), name


def test_public_names_say_that_they_are_trio_connects():
    """A repr, a traceback and a pickle name the address that users import from, not the module it was written in."""
    said = {
        name: value.__module__
        for name in PUBLIC
        if inspect.isclass(value := getattr(trio_connect, name)) or inspect.isroutine(value)
    }
    assert said == dict.fromkeys(said, "trio_connect")


def test_what_type_checkers_read_is_what_loads_on_first_use():
    """The two places where such a name stands; `trio_connect/__init__.py` says why there are two."""
    package = read_tree(SRC)["trio_connect"]
    loaded = vars(trio_connect)
    where = {f"trio_connect.{module}": module for module in loaded["_LATER"].values()}
    assert sorted(
        (item.name, where.get(item.module, "")) for item in imports_of(package) if item.when is When.TYPING
    ) == sorted([*loaded["_LATER"].items(), *((name, "") for name in loaded["_SUBPACKAGES"])])


@pytest.mark.parametrize("name", sorted(vars(trio_connect)["_SUBPACKAGES"]))
def test_subpackages_load_on_first_use(name):
    """As an attribute of the package, without an import statement of their own; and not before."""
    code = (
        "import sys, trio_connect\n"
        f"assert 'trio_connect.{name}' not in sys.modules\n"
        f"module = trio_connect.{name}\n"
        f"import trio_connect.{name} as imported\n"
        "assert module is imported\n"
    )
    assert fresh_python("-c", code).stderr == ""


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match=r"module 'trio_connect' has no attribute 'conect'"):
        _ = trio_connect.conect  # type: ignore[attr-defined]


# --- manners ----------------------------------------------------------------------------------------------------------


def test_nothing_uses_trios_private_names():
    found = [
        f"{path.relative_to(ROOT)}:{line}: {name}"
        for path in python_files("src", "tests", "examples", "benchmarks")
        # Parsing them all takes seconds. These files are formatted, so white space is where it is looked for.
        if re.search(r"\btrio\._|from trio\b.* import (?:.*\b_|\()", text := path.read_text())
        for line, name in private_uses_of_trio(ast.parse(text))
    ]
    assert found == []


@pytest.mark.parametrize(
    "text",
    [
        "import trio._core",
        "from trio._core import Run",
        "from trio import _core",
        "import trio\ntrio._core.x",
    ],
)
def test_checker_sees_private_names_of_trio(text):
    assert list(private_uses_of_trio(ast.parse(text)))


def test_checker_allows_public_names_of_trio():
    assert not list(private_uses_of_trio(ast.parse("import trio.testing\ntrio.__version__\nx._core")))


def test_no_test_sleeps_in_real_time():
    found = [
        f"{path.relative_to(ROOT)}:{line}"
        for path in python_files("tests", "examples")
        # As above.
        if re.search(r"\btime\.sleep\b|\bfrom time import\b", text := path.read_text())
        for line in uses_of_sleep(ast.parse(text))
    ]
    assert found == []


@pytest.mark.parametrize("text", ["import time\ntime.sleep", "from time import monotonic, sleep"])
def test_checker_sees_sleep(text):
    assert list(uses_of_sleep(ast.parse(text)))


# Paths that exist on one machine only, and the places where packages happen to come from.
NOT_OURS = re.compile(
    r"""(?<![\w./-])/(?:home|root|Users|work|mnt|srv|opt)/\w
      | (?<![\w./-])/tmp/\w
      | \b(?:pypi|pythonhosted|npmjs|debian)\.(?:org|com)\b
    """,
    re.VERBOSE,
)


def test_the_project_speaks_of_itself_alone():
    found = [
        f"{path.relative_to(ROOT)}: {match[0]}"
        for path in our_files()
        for match in NOT_OURS.finditer(path.read_text(encoding="utf-8", errors="replace"))
    ]
    assert found == []


# Put together here, so that this file does not speak of them either.
@pytest.mark.parametrize(("text", "name"), [("see /{}/me/x", "home"), ("(/{}/x)", "tmp"), ("https://{}.org", "pypi")])
def test_checker_sees_foreign_places(text, name):
    assert NOT_OURS.search(text.format(name))


@pytest.mark.parametrize("text", ["src/work/x", "/etc/hosts", "/tmp", "tests/tmp/x"])
def test_checker_allows_other_paths(text):
    assert not NOT_OURS.search(text)


def test_nothing_lies_about():
    # The end of a run of the suite looks again, see conftest.py.
    assert strays(known_to_git() or []) == []


@pytest.mark.parametrize("name", ["mailer.limits", "notes.md", "tests/x.sock", "elsewhere/x.py", "docs/x.limits"])
def test_checker_sees_a_stray(name):
    assert strays(["src/trio_connect/py.typed", "README.md", name, "docs/index.md"]) == [name]
