"""The command line: one file per command. Each parses, calls a stage, prints; there is no logic here."""
