"""`python -m bridge` is the command line: iproute2 has a program named `bridge` too."""

from bridge.cli import main

if __name__ == "__main__":
    main(prog_name="bridge")
