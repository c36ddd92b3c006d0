"""Analyses as something a person or a program reads: text, HTML, JSON and more."""
