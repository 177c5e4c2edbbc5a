"""The table of states: complete, lawful, and what the specification says row by row."""

from __future__ import annotations

import errno
from typing import get_args

import pytest

from trio_connect.queues._states import EVENTS, SUBMIT, Event, Kind, State, Submission, refusal_text

KINDS = get_args(Kind)
STATES = get_args(State)
SUBMISSIONS = get_args(Submission)


def outcomes(kind: Kind, state: State) -> list[str]:
    """A row of the table as words: the next state, or the name of the errno."""
    row = SUBMIT[kind][state]
    return [errno.errorcode[o] if isinstance(o, int) else o for o in (row[s] for s in SUBMISSIONS)]


#              bind        listen          accept      connect         push        push_to       pop         close
STREAM = {
    "unbound":    "binding EDESTADDRREQ    EINVAL      connecting      ENOTCONN    EOPNOTSUPP    ENOTCONN    closing",
    "binding":    "EBUSY   EBUSY           EBUSY       EBUSY           EBUSY       EBUSY         EBUSY       closing",
    "bound":      "EINVAL  listening       EINVAL      connecting      ENOTCONN    EOPNOTSUPP    ENOTCONN    closing",
    "listening":  "EINVAL  EADDRINUSE      listening   EOPNOTSUPP      ENOTCONN    EOPNOTSUPP    ENOTCONN    closing",
    "connecting": "EINVAL  EADDRINUSE      EINVAL      EINPROGRESS     ENOTCONN    EOPNOTSUPP    ENOTCONN    closing",
    "connected":  "EISCONN EISCONN         EINVAL      EISCONN         connected   EOPNOTSUPP    connected   closing",
    "closing":    "EBADF   EBADF           EBADF       EBADF           EBADF       EBADF         EBADF       EBADF",
    "closed":     "EBADF   EBADF           EBADF       EBADF           EBADF       EBADF         EBADF       EBADF",
}  # fmt: skip
DATAGRAM = {
    "unbound":    "binding EOPNOTSUPP      EOPNOTSUPP  connecting      ENOTCONN    bound         EDESTADDRREQ closing",
    "binding":    "EBUSY   EBUSY           EBUSY       EBUSY           EBUSY       EBUSY         EBUSY       closing",
    "bound":      "EINVAL  EOPNOTSUPP      EOPNOTSUPP  connecting      ENOTCONN    bound         bound       closing",
    "connecting": "EINVAL  EOPNOTSUPP      EOPNOTSUPP  EINPROGRESS     ENOTCONN    EINPROGRESS   ENOTCONN    closing",
    "connected":  "EISCONN EOPNOTSUPP      EOPNOTSUPP  EISCONN         connected   EISCONN       connected   closing",
    "closing":    "EBADF   EBADF           EBADF       EBADF           EBADF       EBADF         EBADF       EBADF",
    "closed":     "EBADF   EBADF           EBADF       EBADF           EBADF       EBADF         EBADF       EBADF",
}  # fmt: skip


@pytest.mark.parametrize("state", STREAM)
def test_stream_row(state):
    expected = [word.replace("EOPNOTSUPP", errno.errorcode[errno.EOPNOTSUPP]) for word in STREAM[state].split()]
    assert outcomes("stream", state) == expected


@pytest.mark.parametrize("state", DATAGRAM)
def test_datagram_row(state):
    expected = [word.replace("EOPNOTSUPP", errno.errorcode[errno.EOPNOTSUPP]) for word in DATAGRAM[state].split()]
    assert outcomes("datagram", state) == expected


@pytest.mark.parametrize("kind", KINDS)
def test_every_pair_is_listed(kind):
    assert set(SUBMIT[kind]) == set(STATES)
    assert all(set(row) == set(SUBMISSIONS) for row in SUBMIT[kind].values())


@pytest.mark.parametrize("kind", KINDS)
def test_every_state_can_be_left_but_closed(kind):
    """By submissions and events together; and only "closed" stays as it is."""
    for state in set(STATES) - {"closed"}:
        submitted = {o for o in SUBMIT[kind][state].values() if not isinstance(o, int)}
        happened = {after[state] for after in EVENTS.values() if state in after}
        assert (submitted | happened) - {state}, state
    assert not {o for o in SUBMIT[kind]["closed"].values() if not isinstance(o, int)}


@pytest.mark.parametrize("kind", KINDS)
def test_what_begins_ends_in_each_way_that_it_can(kind):
    """A state that a submission leads to and that is not at rest has an event for success and one for failure."""
    assert {EVENTS[e].get("binding") for e in ("bound", "bind failed")} == {"bound", "unbound"}
    assert {EVENTS[e].get("connecting") for e in ("connected", "connect failed")} == {"connected", "unbound"}
    assert EVENTS["closed"] == {"closing": "closed"}


@pytest.mark.parametrize("event", ["bound", "bind failed", "connected", "connect failed"])
@pytest.mark.parametrize("state", ["closing", "closed"])
def test_a_late_event_changes_nothing(event: Event, state: State):
    assert EVENTS[event][state] == state


@pytest.mark.parametrize("kind", KINDS)
def test_every_refusal_has_its_words(kind):
    for state, row in SUBMIT[kind].items():
        for submission, outcome in row.items():
            if isinstance(outcome, int):
                text = refusal_text(kind, state, submission, outcome)
                assert text.startswith(f"{submission} on a {kind} queue that is {state}: ")
