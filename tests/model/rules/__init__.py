"""Tests of the rules, a class per rule: what shows it, what only looks like it, what cannot be told."""
