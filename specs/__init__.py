"""The contracts every other package speaks: formats, names, versions and errors.

This package imports nothing of ours and neither numpy nor torch, so commands that only look
things up start fast.
"""
