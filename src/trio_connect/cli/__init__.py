"""The command line; it uses public names only, like any other program."""
