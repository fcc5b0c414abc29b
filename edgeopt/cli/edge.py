"""The one place where exceptions become exit codes.

0 ok, 1 the user's error, 2 usage, 3 our bug (with a log), 4 limits missed, 5 inconclusive, 130 interrupted.
"""

import sys

import click

from edgeopt.cli import interrupt

__all__ = ["run"]


def run(command: click.Command, arguments: list[str]) -> int:
    """Run ``command`` and return the exit code; errors are printed on stderr."""
    with interrupt.watched():
        return _run(command, arguments)


def _run(command: click.Command, arguments: list[str]) -> int:  # noqa: PLR0911 - one return per exit code
    from edgeopt.core.errors import EdgeOptError

    as_json = "--json" in arguments
    try:
        outcome = command.main(args=arguments, prog_name="edgeopt", standalone_mode=False)
    except click.exceptions.Exit as stop:
        return stop.exit_code
    except click.ClickException as error:
        if as_json:
            _document(error, error.format_message())
        error.show()
        return error.exit_code
    except (KeyboardInterrupt, click.Abort):
        return _interrupted()
    except EdgeOptError as error:
        if interrupt.was_asked():
            return _interrupted()
        _say(error, as_json=as_json)
        return error.exit_code
    except BrokenPipeError:
        sys.stderr.close()
        return 0
    except Exception as error:  # noqa: BLE001 - the edge: anything else is a defect of ours, and is logged
        if interrupt.was_asked():
            return _interrupted()
        where = _log(error)
        click.echo(f"Internal error: {type(error).__name__}: {error}\nThis is a bug in edgeopt. Log: {where}", err=True)
        return 3
    return outcome if isinstance(outcome, int) else 0


def _interrupted() -> int:
    click.echo("\nInterrupted. Nothing was left half written; the next run resumes from the cache.", err=True)
    return 130


def _say(error: Exception, *, as_json: bool) -> None:
    if as_json:
        _document(error, str(error))
    click.echo(f"Error: {error}", err=True)


def _document(error: Exception, message: str) -> None:
    import json

    details = {key: _text(getattr(error, key, None)) for key in ("what", "got", "fix")}
    click.echo(json.dumps({"error": {"type": type(error).__name__, "message": message, **details}}))


def _text(value: object) -> str | None:
    return None if value is None else str(value)


def _log(error: BaseException) -> str:
    """Write the traceback where the user can find it and send it."""
    import tempfile
    import traceback
    from pathlib import Path

    import platformdirs

    text = "".join(traceback.format_exception(error))
    for folder in (platformdirs.user_log_dir("edgeopt", appauthor=False), tempfile.gettempdir()):
        try:
            Path(folder).mkdir(parents=True, exist_ok=True)
            with tempfile.NamedTemporaryFile("w", dir=folder, prefix="crash-", suffix=".log", delete=False) as file:
                file.write(f"{sys.version}\n{sys.argv}\n\n{text}")
        except OSError:
            continue
        return file.name
    return "could not be written:\n" + text
