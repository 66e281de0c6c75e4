"""Measurements that repeat the published tables; README.md has the command for each. None of it is installed."""
