"""The command line: one file a noun; data on stdout, messages on stderr."""
