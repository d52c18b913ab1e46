"""`python -m tinygpt` is the console script."""

from tinygpt.cli._root import main

if __name__ == "__main__":
    main()
