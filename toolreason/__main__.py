"""`python -m toolreason`: the command, for an environment whose scripts are not on the path."""

from toolreason.cli import main

if __name__ == "__main__":
    main()
