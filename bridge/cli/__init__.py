"""The command line. `main` is a click group whose commands live in one file per theme."""

try:
    from bridge.cli.group import main
except ModuleNotFoundError as error:
    if error.name != "click":
        raise

    def main(**_: object) -> None:  # type: ignore[misc]  # stands in for the group
        """Say what is missing."""
        raise SystemExit(
            "bridge: the command line needs one more package: pip install 'bridge[cli]'"
        ) from None


__all__ = ["main"]
