"""Shells around sockets: they do what the pure parts decide, and nothing else here touches the kernel."""
