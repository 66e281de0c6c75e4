"""Measuring, and the facts about the machine that a measurement is worth nothing without."""

from simimg.bench.machine import machine_facts

__all__ = ["machine_facts"]
