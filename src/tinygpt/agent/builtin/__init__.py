"""Tools of the house: files of the workspace, its tests, and Python in the sandbox."""
