"""``edgeopt sample``: a ready application around a bundle."""

import json
from pathlib import Path

import click

__all__ = ["sample"]


@click.command(epilog="Example: edgeopt sample android dist/model-android-arm64 -o apps/model")
@click.argument("platform", metavar="android|ios")
@click.argument("bundle", type=click.Path(path_type=Path))
@click.option("-o", "--output", "destination", type=click.Path(path_type=Path), required=True, help="A new folder.")
@click.option("--json", "as_json", is_flag=True, help="Print what was written as JSON.")
def sample(platform: str, bundle: Path, destination: Path, *, as_json: bool) -> None:
    """Write a sample application for PLATFORM (android: Kotlin and Gradle; ios: Swift and XcodeGen) around BUNDLE.

    The application reads the bundle's input contract and session options, re-runs the bundle's reference samples on the
    phone, times them per provider, and classifies a picture where the model takes one.
    """
    from edgeopt.samples.write import write_sample

    made = write_sample(bundle, platform, destination)
    if as_json:
        document = {
            "directory": str(made.directory),
            "platform": made.platform,
            "samples": made.samples,
            "files": made.files,
        }
        click.echo(json.dumps(document, indent=2))
        return
    click.echo(f"{made.directory}: {len(made.files)} files, {made.samples} reference samples for its self-test.")
    click.echo("Not run on a phone; README.md in it says how to build it.")
