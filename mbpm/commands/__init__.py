"""The commands, one module each; `mbpm.app` has the table and imports one when it runs."""
