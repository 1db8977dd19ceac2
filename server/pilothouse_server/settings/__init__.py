"""The settings of a server: its environment variables, how their text is read, and their list for `--help`."""
