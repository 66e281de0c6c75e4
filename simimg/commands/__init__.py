"""The commands, one module each: with `simimg.cli`, the only code that writes to a terminal."""
