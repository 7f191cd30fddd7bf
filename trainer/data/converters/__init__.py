"""Converters: one source's own format -> training examples."""
