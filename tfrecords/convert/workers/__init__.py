"""Runs the tasks of a conversion: in a pool of processes on this machine, or on Apache Beam."""
