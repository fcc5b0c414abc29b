"""``python -m edgeopt`` is ``edgeopt``."""

from edgeopt.cli.main import main

if __name__ == "__main__":
    main()
