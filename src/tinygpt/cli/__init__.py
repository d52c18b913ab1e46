"""The command line: parse, one call, render. A file is a command, a folder is a heading of `tinygpt
--help`."""
