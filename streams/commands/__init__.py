"""The subcommands of `pointsman`, one module each."""
