"""How good a model is, in figures and pictures."""

from simimg.evaluation.classify import Classification, classify, compiled, predict, wilson_interval

__all__ = ["Classification", "classify", "compiled", "predict", "wilson_interval"]
