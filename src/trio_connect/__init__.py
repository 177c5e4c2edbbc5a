"""The connection layer for Trio: every way to reach a peer that must be reached."""
