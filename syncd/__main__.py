"""`python -m syncd`."""

from syncd.commands import main

main()
