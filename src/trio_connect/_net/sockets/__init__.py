"""The sockets beneath everything: one contract, two kinds."""
