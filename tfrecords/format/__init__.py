"""The files on disk: records, examples, shards, and the files that describe them."""
