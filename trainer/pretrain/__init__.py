"""Bases of one's own: from a configuration and text to a quantised GGUF file."""
