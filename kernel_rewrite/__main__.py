"""`python -m kernel_rewrite` and the `kernel-rewrite` command."""

from kernel_rewrite.cli import main

if __name__ == "__main__":
    main()
