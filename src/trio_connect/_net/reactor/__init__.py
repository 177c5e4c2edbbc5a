"""One task that waits for the sockets of many operations."""
