"""The parsers, both engines, against builders, captures and trace-cmd."""
