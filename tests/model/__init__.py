"""Tests of the model: histories in, verdicts out."""
