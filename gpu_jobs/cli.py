"""The command `fanfold`, for everything that is not a flow. Each subcommand is one parser and one function."""

import argparse
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from gpu_jobs.emulators.rehearse import emulators, installed, rehearse
from gpu_jobs.errors import FanfoldError
from gpu_jobs.forecast.history import forecast_text
from gpu_jobs.jobs.offers import offers_table
from gpu_jobs.jobs.orders import Policy
from gpu_jobs.platforms import checks, deploy, known_offers, known_platforms

_FAILED, _REFUSED, _INTERRUPTED = 1, 2, 130


def main(arguments: Sequence[str] | None = None) -> int:
    """Parse and run. Return the subcommand's exit code, 1 if it failed, 130 if interrupted; argparse exits with 2."""
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
        prog="fanfold", description="Everything that is not a flow. Flows are started by python -m flows.NAME."
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    _add_rehearse(commands.add_parser("rehearse", help="run a command against emulated clouds on this machine"))
    _add_doctor(commands.add_parser("doctor", help="check what a platform needs, before anything is started"))
    _add_deploy(commands.add_parser("deploy", help="put Fanfold's code into a platform"))
    _add_offers(commands.add_parser("offers", help="list what can be rented, with prices"))
    _add_forecast(
        commands.add_parser("forecast", help="predict what the rest of a campaign will cost and when it will end")
    )
    return parser


def _add_rehearse(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Start emulated clouds on this machine, run a command whose environment leads the vendors' clients to them, "
        "print what it would have cost, and stop them. The exit code is that of the command."
    )
    parser.usage = "fanfold rehearse [--platforms NAMES] [--upload FOLDER] [--folder FOLDER] -- COMMAND ..."
    parser.add_argument(
        "--platforms",
        type=_names,
        help=f"which to start, separated by commas, of {', '.join(emulators())}; by default all that are installed",
    )
    parser.add_argument(
        "--upload", type=Path, action="append", default=[], metavar="FOLDER",
        help="put its files into gs://rehearsal/NAME-OF-FOLDER first; may be repeated",
    )  # fmt: skip
    parser.add_argument(
        "--folder", type=Path, default=Path("fanfold-rehearsal"),
        help="keeps buckets and logs, so that the same command resumes (%(default)s); delete it to start afresh",
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
        if name not in emulators():
            raise argparse.ArgumentTypeError(f"'{name}' is not one of {', '.join(emulators())}")
    return names


def _add_doctor(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Check what a platform needs, one line per check, with the fix for each that fails; then the exit code is 1."
    )
    parser.add_argument("platform", choices=[row.name for row in known_platforms().values() if row.doctor])
    parser.add_argument("--store", required=True, help="gs://bucket/prefix that will hold the campaigns")
    parser.set_defaults(run=lambda asked: _doctor(asked.platform, asked.store))


def _doctor(platform: str, store: str) -> int:
    is_well = True
    for check in checks(platform, store):
        is_well &= check.is_ok
        line = f"{'ok     ' if check.is_ok else 'MISSING'} {check.name}: {check.found}"
        sys.stdout.write(f"{line.rstrip('.')}. {check.fix}\n" if check.fix else f"{line}\n")
        sys.stdout.flush()  # the next check may take seconds
    return 0 if is_well else _FAILED


def _add_deploy(parser: argparse.ArgumentParser) -> None:
    deployable = [row.name for row in known_platforms().values() if row.deploy]
    parser.add_argument("platform", choices=deployable, help="the other platforms run a container image")
    parser.set_defaults(run=lambda asked: _deploy(asked.platform))


def _deploy(platform: str) -> int:
    sys.stdout.write(f"{deploy(platform)}\n")
    return 0


def _add_offers(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--platform", choices=[*known_platforms()], help="only the offers of this platform")
    parser.set_defaults(run=lambda asked: _offers(asked.platform))


def _offers(platform: str | None) -> int:
    found = known_offers([platform] if platform else [])
    sys.stdout.write(f"{offers_table(found, datetime.now(UTC).date())}\n")
    return 0


def _add_forecast(parser: argparse.ArgumentParser) -> None:
    parser.description = "Simulate the rest of a campaign many times, with what it and earlier campaigns have measured."
    parser.add_argument("campaign", help="a folder or gs://bucket/prefix")
    parser.add_argument(
        "--platforms", type=lambda text: text.split(","), default=Policy().platforms, help="names, separated by commas"
    )
    parser.add_argument(
        "--max-workers", type=int, default=Policy().max_workers, help="how many GPU workers may run at once"
    )
    parser.add_argument("--budget-usd", type=float, help="dollars that may be spent")
    parser.set_defaults(run=_forecast)


def _forecast(asked: argparse.Namespace) -> int:
    policy = Policy(platforms=tuple(asked.platforms), max_workers=asked.max_workers, budget_usd=asked.budget_usd)
    sys.stdout.write(f"{forecast_text(asked.campaign, policy, known_offers(policy.platforms))}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
