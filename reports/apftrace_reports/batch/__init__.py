"""Reports on many runs at once: an index page, JUnit for CI, Markdown for its summary."""
