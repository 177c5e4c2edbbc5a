"""The command ``trio-connect``: its words, and where its output goes."""

from __future__ import annotations

import argparse
import contextlib
import math
import os
import sys
from collections.abc import Callable, Collection, Generator, Sequence
from functools import partial
from typing import IO, Final, TextIO, cast

import trio

import trio_connect
from trio_connect import RacePolicy

from .outcome import CannotWrite, ExitCode
from .settings import (
    Settings,
    make_sources,
    parse_address,
    parse_connect_to,
    parse_protocols,
    parse_resolve,
    parse_seconds,
    parse_target,
)

__all__ = ["main"]

_EXIT_CODES: Final = (
    "exit codes, as curl has them: 0 connected, 2 usage, 6 no address, 7 no connection, 23 could not write, "
    "28 time-out, 35 TLS, 60 certificate, 130 interrupted"
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code.

    Args:
      arguments: the words after its name; None for those of the process.
    """
    with contextlib.ExitStack() as stack:
        if sys.stderr is None:
            # Closed by who started us (2>&-), and print would take stdout in its place.
            stack.enter_context(contextlib.redirect_stderr(stack.enter_context(open(os.devnull, "w"))))
        return _main(_parser(), arguments)


def _main(parser: argparse.ArgumentParser, arguments: Sequence[str] | None) -> int:
    parsed = parser.parse_args(arguments)
    try:
        if parsed.command == "demo":
            from .demo import main as demo

            return trio.run(demo)
        try:
            settings = _settings(parsed)
        except ValueError as error:
            parser.error(str(error))
        return (_check if parsed.command == "check" else _probe)(parser, parsed, settings)
    except KeyboardInterrupt:
        return ExitCode.INTERRUPTED
    except BaseExceptionGroup as group:
        if group.split(KeyboardInterrupt)[1] is not None:
            raise
        return ExitCode.INTERRUPTED


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="trio-connect", description="See how connections are made from here, and why they are not."
    )
    parser.add_argument("--version", action="version", version=f"trio-connect {trio_connect.__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    commands.add_parser("demo", help="watch a race on this machine: four addresses of one service, the last one good")
    probe = commands.add_parser(
        "probe",
        help="connect to each target, and say what was tried, how long it took, and what follows",
        description="Connect to each target as a client would, and say what was tried and what follows from it.",
        epilog=_EXIT_CODES,
    )
    probe.add_argument(
        "targets", nargs="+", type=parse_target, metavar="HOST[:PORT]", help="whom to reach; port 443 without one"
    )
    probe.add_argument(
        "--each", action="store_true", help="no race: each address from each source by itself and to its end"
    )
    _add_ways(probe)
    probe.add_argument("-n", "--rounds", type=_count, default=1, metavar="N", help="probe each target so often")
    probe.add_argument(
        "--interval", type=parse_seconds, default=1.0, metavar="SECONDS", help="between two starts; 1 without it"
    )
    probe.add_argument(
        "--format", type=partial(_format, "check", ("prometheus",)), choices=("text", "json", "jsonl", "svg"),
        default="text", help="text without it; metrics for Prometheus are of check",
    )  # fmt: skip
    probe.add_argument("-o", "--output", metavar="FILE", help="write there and not to stdout")
    _add_check(
        commands.add_parser(
            "check",
            help="each address of many targets by itself, as a table or as metrics for Prometheus",
            description="Connect to each address of many targets by itself, many at a time.",
            epilog=_EXIT_CODES,
        )
    )
    return parser


def _format(other: str, theirs: Collection[str], value: str) -> str:
    if value in theirs:
        raise argparse.ArgumentTypeError(f"{value} is a format of: trio-connect {other}")
    return value


def _add_check(check: argparse.ArgumentParser) -> None:
    check.add_argument("file", metavar="FILE", help="one target a line, # begins a comment; - is stdin")
    _add_ways(check)
    check.add_argument("--at-once", type=_count, default=100, metavar="N", help="targets at a time; 100 without it")
    check.add_argument(
        "--format", type=partial(_format, "probe --each", ("json", "jsonl", "svg")), choices=("text", "prometheus"),
        default="text", help="text without it; JSON is of probe --each",
    )  # fmt: skip
    check.add_argument("-o", "--output", metavar="FILE", help="write there and not to stdout")
    check.set_defaults(each=True)


def _add_ways(probe: argparse.ArgumentParser) -> None:
    families = probe.add_mutually_exclusive_group()
    families.add_argument("-4", dest="family", action="store_const", const=4, help="IPv4 only")
    families.add_argument("-6", dest="family", action="store_const", const=6, help="IPv6 only")
    probe.add_argument(
        "--tls", action=argparse.BooleanOptionalAction, help="speak TLS, or do not; without either on port 443 only"
    )
    probe.add_argument("--no-verify", action="store_true", help="take any certificate")
    probe.add_argument(
        "--alpn", type=parse_protocols, metavar="NAME[,NAME]...",
        help="the protocols to offer in TLS, such as h2,http/1.1",
    )  # fmt: skip
    probe.add_argument(
        "--source", action="append", default=[], type=parse_address, metavar="ADDRESS", help="connect from there"
    )
    probe.add_argument("--interface", metavar="NAME", help="connect through this interface")
    probe.add_argument("--proxy", metavar="URL", help="through a proxy: socks5, socks5h or http")
    probe.add_argument(
        "--resolve",
        action="append",
        default=[],
        type=parse_resolve,
        metavar="HOST:PORT:ADDRESS[,ADDRESS]...",
        help="do not look this host up, take these addresses",
    )
    probe.add_argument(
        "--connect-to",
        action="append",
        default=[],
        type=parse_connect_to,
        metavar="HOST1:PORT1:HOST2:PORT2",
        help="connect to the second for a target that is the first; empty parts mean any, or the same",
    )
    probe.add_argument(
        "--deadline", type=parse_seconds, default=10.0, metavar="SECONDS", help="of a connection; 10 without it"
    )
    probe.add_argument(
        "--attempt-delay",
        type=parse_seconds,
        default=0.25,
        metavar="SECONDS",
        help="from one start of a race to the next; 0.25 without it",
    )


def _count(text: str) -> int:
    if not (text.isascii() and text.isdigit() and int(text) > 0):
        raise argparse.ArgumentTypeError(f"a number above 0 is needed, got {text!r}")
    return int(text)


def _probe(parser: argparse.ArgumentParser, parsed: argparse.Namespace, settings: Settings) -> int:
    from .probe import Job, run

    if parsed.format == "svg" and (len(parsed.targets) > 1 or parsed.rounds > 1):
        parser.error("--format svg draws one probe of one target")

    def start(out: IO[str], progress: IO[str] | None) -> int:
        job = Job(
            targets=tuple(parsed.targets),
            settings=settings,
            rounds=parsed.rounds,
            interval=parsed.interval,
            format=parsed.format,
            out=out,
            progress=progress,
        )
        return trio.run(run, job)

    return _into(parsed.output, parsed.format, start)


def _check(parser: argparse.ArgumentParser, parsed: argparse.Namespace, settings: Settings) -> int:
    from .check import Check, check, read_targets

    if parsed.file == "-" and sys.stdin is None:
        parser.error("cannot read -: stdin is closed")
    try:
        with contextlib.ExitStack() as stack:
            file = sys.stdin if parsed.file == "-" else stack.enter_context(open(parsed.file, encoding="utf-8"))
            targets = read_targets(file)
    except (OSError, ValueError) as error:
        parser.error(f"cannot read {parsed.file}: {error}")

    def start(out: IO[str], progress: IO[str] | None) -> int:
        job = Check(
            targets=targets,
            settings=settings,
            at_once=parsed.at_once,
            format=parsed.format,
            out=out,
            progress=progress,
        )
        return trio.run(check, job)

    return _into(parsed.output, parsed.format, start)


def _into(name: str | None, form: str, start: Callable[[IO[str], IO[str] | None], int]) -> int:
    try:
        with contextlib.ExitStack() as stack:
            # Before the first packet: a probe whose result has no place to go is a probe for nothing.
            out = _stdout(form, stack) if name is None else stack.enter_context(_file(name))
            return start(out, sys.stderr if sys.stderr.isatty() else None)
    except CannotWrite as failed:
        error = failed.__cause__
        # Broken: the reader has gone, as in `trio-connect probe ... | head -1`.
        if not isinstance(error, BrokenPipeError):
            why = error.strerror if isinstance(error, OSError) else failed
            print(
                f"trio-connect: cannot write {'the result' if name is None else name or repr(name)}: {why}",
                file=sys.stderr,
            )
        if name is None and isinstance(error, OSError):
            # What it holds still, Python would try to write at its end, and say once more that it cannot.
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, sys.stdout.fileno())
            os.close(nowhere)
        return ExitCode.WRITE
    except OSError as error:
        # No descriptor for Trio's own needs, say.
        print(f"trio-connect: cannot begin: {error.strerror}", file=sys.stderr)
        return ExitCode.CONNECT
    except (ValueError, ImportError) as error:
        return _refused(error)
    except ExceptionGroup as group:
        # A probe connects inside of a nursery, which wraps what is raised there.
        if group.split((ValueError, ImportError))[1] is not None:
            raise
        return _refused(group)


@contextlib.contextmanager
def _file(name: str) -> Generator[IO[str]]:
    try:
        file = open(name, "w", encoding="utf-8")  # noqa: SIM115 - what closing raises is told apart from what is written
    except OSError as error:
        raise CannotWrite from error
    try:
        yield file
    finally:
        try:
            file.close()
        except OSError as error:
            raise CannotWrite from error


def _stdout(form: str, stack: contextlib.ExitStack) -> IO[str]:
    """Return stdout, which spells what its encoding does not have: a result is worth more than an umlaut."""
    out: TextIO | None = sys.stdout
    if out is None:
        raise CannotWrite("stdout is closed")
    reconfigure = getattr(out, "reconfigure", None)
    if reconfigure is not None:
        stack.callback(_restore, reconfigure, out.errors)
        reconfigure(errors="xmlcharrefreplace" if form == "svg" else "backslashreplace")
    return out


def _restore(reconfigure: Callable[..., None], errors: str | None) -> None:
    # It writes first what is held still. That this cannot be written has been raised already.
    with contextlib.suppress(OSError):
        reconfigure(errors=errors)


def _refused(error: Exception) -> int:
    """Say what a connect has said of its arguments before it did anything, or which extra it lacks."""
    while isinstance(error, ExceptionGroup):
        error = cast("ExceptionGroup[Exception]", error).exceptions[0]
    print(f"trio-connect: {error}", file=sys.stderr)
    return ExitCode.USAGE


def _settings(parsed: argparse.Namespace) -> Settings:
    if parsed.proxy is not None and parsed.family is not None:
        raise ValueError("-4 and -6 say nothing through a proxy: its addresses are not those of the target")
    if parsed.proxy is not None and parsed.each and parsed.proxy.startswith("socks5h"):
        raise ValueError("--each needs the addresses, and a socks5h proxy looks names up itself: use socks5")
    context = None
    if parsed.no_verify or parsed.alpn:
        import ssl

        context = ssl.create_default_context()
        if parsed.no_verify:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        if parsed.alpn:
            context.set_alpn_protocols(parsed.alpn)
    return Settings(
        deadline=parsed.deadline,
        each=parsed.each,
        tls=parsed.tls,
        context=context,
        # By itself each address is followed to its end, in a race as far as a client would.
        policy=RacePolicy(
            attempt_delay=parsed.attempt_delay,
            attempt_timeout=math.inf if parsed.each else RacePolicy().attempt_timeout,
        ),
        sources=make_sources(parsed.source, family=parsed.family, interface=parsed.interface, proxy=parsed.proxy),
        resolve=dict(parsed.resolve),
        connect_to=tuple(parsed.connect_to),
    )
