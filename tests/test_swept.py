"""Every async function of the public names is cancelled at every step by a sweep, or there is a reason why not.

The names are read from the package, so one that is new fails this until it has its sweep.
"""

from __future__ import annotations

import ast
import importlib
import inspect
import pkgutil
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any, Final

import pytest

import trio_connect

ROOT: Final = Path(__file__).parent
ASYNC_BY_PROTOCOL: Final = {"__aenter__", "__aexit__", "__anext__"}
"""Of the names with underscores these are called by users, with `async with` and `async for`."""

# The test that cancels each name at every step, by file. What a test uses on its way is swept with it.
SWEPT: Final = {
    "net/test_sweeps.py": {
        "test_connect": "tcp_connect",
        "test_connect_and_accept": "unix_connect",
        "test_listen": "tcp_listen unix_listen",
        "test_accept": "TcpListener.accept",
        "test_closing_a_listener": "TcpListener.aclose",
        "test_receiving": """TcpStream.fill TcpStream.receive_exactly TcpStream.receive_into TcpStream.receive_some
            TcpStream.receive_until""",
        "test_sending": "TcpStream.send_all TcpStream.send_eof TcpStream.wait_send_all_might_not_block",
        "test_ending": "TcpStream.aclose TcpStream.close_gracefully",
        "test_passing_descriptors": "UnixStream.receive_fd UnixStream.send_fd",
    },
    "net/test_connectx.py": {
        "test_line_77_a_cancel_at_any_step_leaves_nothing_and_loses_no_winner": "connectx",
    },
    "net/test_connect_by_name.py": {
        "test_line_77_a_cancel_at_any_step_of_a_connect_by_name_leaves_nothing": "connect",
        "test_line_77_a_cancel_at_any_step_of_resolve_leaves_nothing": "resolve",
    },
    "net/test_connect_srv.py": {"test_line_77_a_cancel_at_any_step_leaves_nothing": "connect_srv"},
    "net/test_connect_each.py": {"test_a_block_that_is_cancelled_at_any_step_leaves_nothing": "connect_each"},
    "net/streams/test_exchange.py": {"test_cancelled_at_every_step": "TcpStream.exchange"},
    "net/streams/test_tls.py": {
        "test_cancel_at_every_step_of_a_handshake": "TcpStream.start_tls",
        "test_cancel_at_every_step_of_an_end": "TlsStream.aclose",
    },
    "net/names/test_system.py": {
        "test_line_77_a_cancel_at_any_step_of_a_walk_leaves_nothing": "SystemResolver.addresses SystemResolver.ask",
    },
    "net/names/test_dns.py": {
        "test_line_77_a_cancel_at_any_step_leaves_nothing": """DnsResolver.__aenter__ DnsResolver.__aexit__
            DnsResolver.addresses DnsResolver.mx DnsResolver.services DnsResolver.srv""",
    },
    "queues/test_cancel.py": {
        "test_a_waiter_cancelled_at_any_step_loses_no_result": """queues.QueueSet.completions queues.QueueSet.wait
            queues.QueueSet.wait_any queues.QueueSet.wait_next""",
        "test_who_waits_for_room_leaves_no_trace": "queues.QueueSet.room",
        "test_a_set_cancelled_at_any_step_leaves_nothing": "queues.IOQueue.listen queues.open_queue_set",
        "test_an_aclose_cancelled_at_any_step_closes_all_the_same": "queues.IOQueue.aclose",
        "test_a_bind_cancelled_at_any_step_leaves_nothing": "queues.IOQueue.bind",
    },
    "outbound/test_structure.py": {
        "test_45_no_task_and_no_descriptor_is_left": """outbound.Destination.connect outbound.Destination.permit
            outbound.open_outbound""",
    },
    "outbound/test_file_store.py": {
        "test_a_cancel_at_any_step_leaves_no_place": """outbound.Destination.try_connect
            outbound.FileStore.__aenter__ outbound.FileStore.__aexit__""",
    },
    "outbound/test_redis_store.py": {
        "test_a_store_that_is_cancelled_at_any_step_leaves_nothing": """outbound.RedisStore.__aenter__
            outbound.RedisStore.__aexit__""",
    },
    "libdill/test_cancel.py": {
        "test_connect": "libdill.tcp_connect",
        "test_listen": "libdill.tcp_listen",
        "test_accept_loses_nobody": "libdill.tcp_accept",
        "test_receive_loses_nothing": "libdill.brecv",
        "test_a_list_of_pieces_loses_nothing": "libdill.brecvl",
        "test_send": "libdill.bsend libdill.bsendl",
        "test_done_is_done_or_not_begun": "libdill.ipc_done libdill.tcp_done",
        "test_close_consumes_the_handle": "libdill.ipc_close libdill.tcp_close",
        "test_ipc_connect": "libdill.ipc_connect",
        "test_ipc_accept": "libdill.ipc_accept",
        "test_ipc_listen": "libdill.ipc_listen",
        "test_passing_a_descriptor_leaks_none": "libdill.ipc_recvfd libdill.ipc_sendfd",
        "test_waiting_for_descriptors": "libdill.fdin libdill.fdout",
        "test_sleeping": "libdill.msleep",
        "test_lookups": "libdill.ipaddr_remote libdill.ipaddr_remotes",
    },
    "sctp/test_behaviour.py": {
        "test_a_connect_that_is_cancelled_at_any_step_leaves_nothing": """sctp.Association.abort
            sctp.SctpListener.aclose sctp.SctpSocket.wait_readable sctp.SctpSocket.wait_writable sctp.connectx
            sctp.listen""",
        "test_sending_receiving_accepting_and_closing_can_be_cancelled_at_any_step": """sctp.Association.aclose
            sctp.Association.receive sctp.Association.send sctp.SctpListener.accept""",
    },
    "adapters/test_anyio.py": {
        "test_cancelled_at_every_step": "adapters.anyio.Connectable.connect",
        "test_a_stream_cancelled_at_every_step": """adapters.anyio.Stream.aclose adapters.anyio.Stream.receive
            adapters.anyio.Stream.send adapters.anyio.Stream.send_eof""",
    },
    "adapters/test_httpcore.py": {
        "test_a_connect_and_a_handshake_cancelled_at_every_step": "adapters.httpcore.Backend.connect_tcp",
    },
    "cli/test_check.py": {
        "test_a_check_cancelled_at_any_step_leaves_nothing": "cli.check.check",
        "test_a_probe_cancelled_at_any_step_leaves_nothing": """cli.live.Live.run cli.probe.run
            cli.probing.probe_each cli.probing.probe_race""",
    },
}

REASONS: Final = {
    "what it does is the caller's": """MailResolver.addresses MailResolver.mx ServiceResolver.services
        SrvResolver.srv""",
    "it looks into a dict, and holds nothing": """StaticResolver.addresses StaticResolver.mx StaticResolver.srv""",
    "it is unix_connect, with another stream around what that returns": "adapters.httpcore.Backend.connect_unix_socket",
    "it is trio.sleep": "adapters.httpcore.Backend.sleep",
    "a demonstration, which ends with its process": "cli.demo.main cli.demo.read_greeting",
    "it serves tests, and calls nothing but receive_some, send_all and aclose": "testing.discard testing.echo",
}


def public_modules() -> Iterator[str]:
    yield "trio_connect"
    for found in pkgutil.walk_packages(trio_connect.__path__, "trio_connect."):
        if not any(part.startswith("_") for part in found.name.split(".")):
            yield found.name


def is_async(function: Any) -> bool:
    """Whether what it returns is awaited, entered or gone through."""
    function = inspect.unwrap(function)
    returned = str(getattr(function, "__annotations__", {}).get("return"))
    return (
        inspect.iscoroutinefunction(function)
        or inspect.isasyncgenfunction(function)
        or returned.startswith(("Async", "AbstractAsync", "Awaitable"))
    )


def public_functions(module: str) -> Iterator[tuple[str, Any]]:
    """The functions and methods that a module shows, by name."""
    loaded = importlib.import_module(module)
    own = [name for name, value in vars(loaded).items() if getattr(value, "__module__", "") == module]
    for name in getattr(loaded, "__all__", own):
        value = getattr(loaded, name)
        if name.startswith("_"):
            continue
        if inspect.isclass(value):
            for attribute in dir(value):
                if not attribute.startswith("_") or attribute in ASYNC_BY_PROTOCOL:
                    method = inspect.getattr_static(value, attribute)
                    yield f"{name}.{attribute}", getattr(method, "__func__", method)
        elif inspect.isfunction(value):
            yield name, value


def async_names() -> dict[str, Any]:
    """All async functions by their public names, each once however many classes inherit it."""
    found: dict[Any, str] = {}
    for module in public_modules():
        prefix = module.removeprefix("trio_connect").lstrip(".")
        for name, function in public_functions(module):
            if callable(function) and is_async(function):
                found.setdefault(inspect.unwrap(function), f"{prefix}.{name}".lstrip("."))
    # What trio and anyio have made of our methods is theirs.
    return {name: function for function, name in found.items() if function.__module__.startswith("trio_connect")}


@cache
def sources(file: str) -> dict[str, str]:
    """The source of each test of a file, by name."""
    text = (ROOT / file).read_text(encoding="utf-8")
    lines = text.splitlines()
    return {
        node.name: "\n".join(lines[node.lineno : node.end_lineno])
        for node in ast.parse(text).body
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    }


def test_every_async_function_has_a_sweep_or_a_reason():
    swept = [name for tests in SWEPT.values() for names in tests.values() for name in names.split()]
    excused = [name for names in REASONS.values() for name in names.split()]
    assert sorted([*swept, *excused]) == sorted(async_names())


@pytest.mark.parametrize("file", SWEPT)
def test_each_of_these_is_a_test_and_sweeps(file):
    for test in SWEPT[file]:
        assert re.search(r"await (sweep|swept)\(", sources(file)[test]), test


def test_what_is_async_is_found():
    names = async_names()
    assert {"connectx", "connect_each", "TcpStream.receive_some", "outbound.Destination.permit"} <= names.keys()
    assert not {"now", "TcpStream.take", "queues.IOQueue.pop"} & names.keys()
