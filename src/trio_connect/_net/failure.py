"""How an attempt of a race failed, before anybody asks for an error of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs

from .._errors import connect_error
from .attempt import describe_source

if TYPE_CHECKING:
    from .._endpoint import Endpoint, Source
    from .._report import Phase


@attrs.frozen
class Failure:
    """Why an attempt could not go on."""

    code: int
    phase: Phase
    endpoint: Endpoint
    source: Source | None
    elapsed: float

    def to_error(self) -> OSError:
        """Return it as the error of the attempt; a race that is won never needs the text."""
        source = describe_source(None, self.endpoint, self.source)
        return connect_error(self.code, self.phase, self.endpoint, source, self.elapsed)
