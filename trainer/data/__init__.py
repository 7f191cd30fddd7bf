"""Training data: reading what people hand in, converting known sources, splitting by group."""
