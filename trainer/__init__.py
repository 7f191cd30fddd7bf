"""From data to a pack folder: examples, low-rank training on the quantised base, evaluation."""
