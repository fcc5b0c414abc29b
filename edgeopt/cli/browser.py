"""``edgeopt devices setup browser``."""

import click

__all__ = ["browser"]

_EXAMPLES = """\b
Examples:
  edgeopt devices setup browser
  edgeopt compile model.pt2 --target browser-wasm --data digits
  edgeopt bench dist/model-browser-wasm --device browser --screenshot page.png
"""


@click.command("browser", epilog=_EXAMPLES)
@click.option(
    "--version", "wanted", metavar="VERSION", help="Of onnxruntime-web.  [default: what fits onnxruntime here]"
)
@click.option("--remove", "removing", is_flag=True, help="Delete it again.")
def browser(wanted: str | None, *, removing: bool) -> None:
    """Get onnxruntime-web, for engines in a headless Chromium.

    npm fetches the package (33 MB) and its archive is held to the registry's integrity; the 14 MB that a page needs go
    into one folder (EDGEOPT_DATA_DIR, else the user's data folder). Chromium comes from the system: apt-get install
    chromium, or EDGEOPT_CHROMIUM says where it is.
    """
    from edgeopt.devices.browser.chromium import find_chromium
    from edgeopt.devices.browser.runtime import PACKAGE, install_runtime, remove_runtime, runtime_folder

    folder = runtime_folder()
    if removing:
        click.echo(f"Removed: {folder}" if remove_runtime() else f"There was nothing in {folder}.")
        return
    found = find_chromium()
    made = install_runtime(wanted)
    beside = f", beside onnxruntime {made.host_version}" if made.host_version else ""
    click.echo(f"Set up: {folder}")
    click.echo(f"{PACKAGE} {made.version}{beside}; {found.version} at {found.path}")
