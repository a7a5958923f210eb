"""The command `fanfold`: what is not a flow. Each subcommand is one entry of `main`'s parser and one function."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from gpu_jobs.errors import FanfoldError
from gpu_jobs.platforms import DOCTORS, checks
from gpu_jobs.rehearse import EMULATORS, installed, rehearse

_FAILED, _REFUSED, _INTERRUPTED = 1, 2, 130


def main(arguments: Sequence[str] | None = None) -> int:
    """Parse and run; return the exit code: that of the subcommand, 1 failed, 2 refused, 130 interrupted."""
    parsed = _parser().parse_args(arguments)
    try:
        code: int = parsed.run(parsed)
    except FanfoldError as error:
        sys.stderr.write(f"{error}\n")
        return _FAILED
    except KeyboardInterrupt:
        return _INTERRUPTED
    return code


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="fanfold", description="What is not a flow; those are started by python -m flows.NAME."
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    _add_rehearse(commands.add_parser("rehearse", help="run a command against emulated clouds on this machine"))
    _add_doctor(commands.add_parser("doctor", help="check what a platform needs, before anything is started"))
    return parser


def _add_rehearse(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Start emulated clouds on this machine, run a command with an environment that leads the vendors' own clients "
        "to them, print what it would have cost, stop them. The exit code is the command's."
    )
    parser.usage = "fanfold rehearse [--platforms NAMES] [--upload FOLDER] [--folder FOLDER] -- COMMAND ..."
    parser.add_argument(
        "--platforms",
        type=_names,
        help=f"which to start, joined by commas, of {', '.join(EMULATORS)}; all that are installed if not given",
    )
    parser.add_argument(
        "--upload", type=Path, action="append", default=[], metavar="FOLDER",
        help="put its files into gs://rehearsal/NAME-OF-FOLDER first; may be repeated",
    )  # fmt: skip
    parser.add_argument(
        "--folder", type=Path, default=Path("fanfold-rehearsal"),
        help="where buckets and logs stay, so that the same command resumes (%(default)s); delete it to begin anew",
    )  # fmt: skip
    parser.add_argument("command", nargs="+", help="what to run, after --")
    parser.set_defaults(
        run=lambda asked: rehearse(
            asked.command, asked.platforms or installed(), folder=asked.folder, uploads=asked.upload
        )
    )


def _names(text: str) -> list[str]:
    names = text.split(",")
    for name in names:
        if name not in EMULATORS:
            raise argparse.ArgumentTypeError(f"'{name}' is none of {', '.join(EMULATORS)}")
    return names


def _add_doctor(parser: argparse.ArgumentParser) -> None:
    parser.description = "Say in a line each what is well, and what is not and how to put it right. Exit code 1 if any."
    parser.add_argument("platform", choices=sorted(DOCTORS))
    parser.add_argument("--store", required=True, help="gs://bucket/prefix that will hold the campaigns")
    parser.set_defaults(run=lambda asked: _doctor(asked.platform, asked.store))


def _doctor(platform: str, store: str) -> int:
    is_well = True
    for check in checks(platform, store):
        is_well &= check.is_ok
        told = f"{'ok     ' if check.is_ok else 'MISSING'} {check.name}: {check.found}"
        sys.stdout.write(f"{told.rstrip('.')}. {check.fix}\n" if check.fix else f"{told}\n")
        sys.stdout.flush()  # the next check may take seconds
    return 0 if is_well else _FAILED


if __name__ == "__main__":
    sys.exit(main())
