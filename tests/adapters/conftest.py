from tests.adapters.kit import client, core

__all__ = ["client", "core"]
