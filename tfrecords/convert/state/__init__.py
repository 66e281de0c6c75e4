"""The files on disk while a conversion runs: the working folder, and one receipt per shard."""
