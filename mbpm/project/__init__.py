"""Projects: a folder with an `mbpm.toml`, its `mbpm.lock`, and the profile that follows it.

`files` finds, reads and replaces the two, `edit` changes mbpm.toml and leaves its comments alone,
`places` knows what registries are called in them, `locking` goes from wants to exact versions,
`changes` tells what is different in a new lock, and `syncing` makes a profile hold what it says.
"""
