"""``python -m apftrace``."""

from apftrace.cli import main

main()
