"""`python -m streams` is the `pointsman` command."""

from streams.cli import main

if __name__ == "__main__":
    main()
