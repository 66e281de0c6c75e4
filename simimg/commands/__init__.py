"""The commands, one module a verb: the only code besides `simimg.cli` that talks to a terminal."""
