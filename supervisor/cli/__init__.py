"""The command line: a client of the control API. Imports only core; commands without a daemon are in `commands`."""
