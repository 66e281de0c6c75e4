"""The result of a conversion: final shards, the published data set folder, and the summary."""
