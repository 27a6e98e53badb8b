"""``python -m mapgrad``."""

from mapgrad.cli import main

main()
