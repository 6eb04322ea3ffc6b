"""Commands on finished runs, one file per command: options and printing only."""
