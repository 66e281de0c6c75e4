"""What lies on disk while a conversion runs: the working folder, and a receipt for each shard."""
