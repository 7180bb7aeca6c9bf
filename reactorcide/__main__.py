"""``python -m reactorcide``."""

from reactorcide.cli import main

main()
