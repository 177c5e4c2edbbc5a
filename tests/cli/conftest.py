"""The command as a function on the virtual network, and as a process of its own."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import attrs
import jsonschema
import pytest

import trio_connect.cli
from trio_connect.cli import main as command
from trio_connect.cli.outcome import ExitCode
from trio_connect.cli.probe import Format, Job, run

SCHEMA = json.loads((Path(trio_connect.cli.__file__).parent / "probe.schema.json").read_text())
# `jsonschema.validate` would hold the schema against the schema of schemas each time. Once is enough.
jsonschema.Draft202012Validator.check_schema(SCHEMA)
DOCUMENT = jsonschema.Draft202012Validator(SCHEMA)
LINE = jsonschema.Draft202012Validator({"$ref": "#/$defs/line", "$defs": SCHEMA["$defs"]})


@attrs.frozen
class Found:
    code: ExitCode
    out: str

    @property
    def verdict(self) -> str:
        """The finding and the advice of the first target, from the JSON."""
        target = json.loads(self.out)["targets"][0]
        return f"{target['finding']}: {target['advice']}"


@pytest.fixture
def probe() -> Any:
    """Run a probe within this run of Trio, so on its virtual network."""

    async def probe(*words: str, format: Format = "json") -> Found:
        parsed = command._parser().parse_args(["probe", *words])
        out = io.StringIO()
        job = Job(
            targets=tuple(parsed.targets), settings=command._settings(parsed), rounds=parsed.rounds,
            interval=parsed.interval, format=format, out=out,
        )  # fmt: skip
        code = await run(job)
        if format == "json":
            DOCUMENT.validate(json.loads(out.getvalue()))
        if format == "jsonl":
            for line in out.getvalue().splitlines():
                LINE.validate(json.loads(line))
        return Found(code, out.getvalue())

    return probe


@pytest.fixture
def shell() -> Any:
    """Run the command as a process, its output not a terminal."""

    def shell(*words: str, **options: Any) -> subprocess.CompletedProcess[str]:
        line = [sys.executable, "-X", "dev", "-W", "error", "-m", "trio_connect", *words]
        return subprocess.run(line, capture_output=True, text=True, timeout=30, check=False, **options)

    return shell
