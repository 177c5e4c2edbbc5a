"""Listening sockets: what TCP and unix-domain ones have in common, then each of them with its call."""
