"""The command line: commands, parameters, config files, listing, files to start from."""
