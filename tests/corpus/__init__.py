"""Real captures, changed in known ways, as a fair judge of the analysis."""
