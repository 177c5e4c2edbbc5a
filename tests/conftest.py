from support.doors import door

__all__ = ["door"]
