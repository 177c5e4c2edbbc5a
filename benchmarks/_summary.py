"""What a whole run of the benchmarks held and missed: ``_summary.py FOLDER``, with one JSON file of each script."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from _harness import show, table, versions

VERDICTS = ("MISSED", "not measured")


def main() -> None:
    documents: dict[str, Any] = {
        path.stem: json.loads(path.read_text()) for path in sorted(Path(sys.argv[1]).iterdir())
    }
    rows = []
    held = 0
    for script, document in documents.items():
        for bound in document["bounds"]:
            if bound["verdict"] not in VERDICTS:
                held += 1
                continue
            at_most = bound["at_most"]
            limit = f"at most {at_most:g}" if at_most is not None else f"at least {bound['at_least']:g}"
            measured = show(bound["measured"]) if bound["measured"] is not None else "-"
            rows.append([script, bound["what"], limit, measured, bound["verdict"]])
    print(f"== {held} of {held + len(rows)} bounds hold\n\n{versions()}")
    if rows:
        print("\n" + table(["script", "bound", "limit", "measured", "verdict"], rows))


if __name__ == "__main__":
    main()
