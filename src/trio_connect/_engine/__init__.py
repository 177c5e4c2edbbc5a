"""Decisions without sockets, clocks or chance: time and facts go in, commands come out."""
