"""`python -m dawnchorus.cli`."""

from dawnchorus.cli import main

main()
