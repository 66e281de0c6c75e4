"""What comes out: final shards, the published data set folder, and the summary."""
