"""Connecting through proxies."""
