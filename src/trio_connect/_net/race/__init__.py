"""The shell of a race: what runs the decisions of `_engine.race`."""
