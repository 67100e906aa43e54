"""The subcommands of `emotion-detection`, one file each."""
