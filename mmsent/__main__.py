"""`python -m mmsent` is the command `mmsent`, for where the folder of scripts is not on the path."""

from mmsent.cli.main import main

if __name__ == "__main__":
    main()
