"""Parsers: recorded traces to Arrow data, under the kernel's own names."""
