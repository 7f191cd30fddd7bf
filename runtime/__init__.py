"""The quantised runtime: base, adapters, router, sessions.

It is handed base folders and pack folders and knows nothing of registries. Torch is imported by
`runtime.torch_engine` and what stands below it, and by nothing above the `Engine` protocol; the
native engine (`runtime.native`) does without.
"""
