"""Measures this project beside other tools and the limits of the machine: what `simimg bench` runs."""
