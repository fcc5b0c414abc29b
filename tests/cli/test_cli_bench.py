from __future__ import annotations

import pytest
from click.testing import CliRunner

from edgeopt.cli import bench as module
from edgeopt.cli.quantities import duration_s, share
from edgeopt.core.errors import EdgeOptError
from edgeopt.core.measurement import Interval, Measurement


@pytest.fixture
def run(monkeypatch):
    """Run ``bench`` with what it would have measured; returns the exit code, the output and what was asked for."""

    def go(*arguments, measured=()):
        asked = {}

        def stand_in(bundle, **options):
            asked.update(options)
            return measured

        monkeypatch.setattr(module, "bench_bundle", stand_in)
        done = CliRunner().invoke(module.bench, ["somewhere", *arguments], standalone_mode=False)
        if done.exception is not None:
            raise done.exception
        return done.return_value, done.output, asked

    return go


@pytest.mark.parametrize(
    ("text", "seconds"), [("45s", 45.0), ("30m", 1800.0), ("1.5h", 5400.0), (" 2 m ", 120.0), ("0.5s", 0.5)]
)
def test_a_time_is_read_as_people_write_it(text, seconds):
    assert duration_s(text) == seconds


@pytest.mark.parametrize("text", ["", "5", "-5s", "0s", "1d", "m", "1e3s", "inf s", "5 minutes"])
def test_what_is_no_time_is_refused(text):
    with pytest.raises(EdgeOptError, match="no length of time"):
        duration_s(text)


@pytest.mark.parametrize("text", ["0", "0%", "100%", "1", "-5%", "five", "", "nan"])
def test_what_is_no_share_is_refused(text):
    with pytest.raises(EdgeOptError, match="no share between 0 and 1"):
        share(text)


def test_a_share_is_a_percentage_or_a_fraction():
    assert share("5%") == share("0.05") == 0.05


def test_all_scenarios_are_asked_for_at_once(run):
    assert run("--scenario", "all")[2]["scenarios"] == ("single-stream", "multi-stream", "offline", "server")
    assert run("--scenario", "offline", "--scenario", "offline")[2]["scenarios"] == ("offline",)
    assert run()[2]["scenarios"] == ()


def test_a_rate_or_a_bound_asks_for_the_server(run):
    assert run("--qps", "50")[2]["scenarios"] == ("server",)
    asked = run("--p99", "20", "--scenario", "offline")[2]
    assert (asked["scenarios"], asked["p99_ms"]) == (("offline", "server"), 20.0)


def test_a_rate_and_a_bound_together_are_refused(run):
    with pytest.raises(EdgeOptError, match="either given or searched"):
        run("--qps", "50", "--p99", "20")


def test_only_a_soak_and_a_roofline_are_drawn(run):
    with pytest.raises(EdgeOptError, match="Only a soak and a roofline are drawn"):
        run("-o", "soak.html")
    with pytest.raises(EdgeOptError, match="Only a soak and a roofline are drawn"):
        run("--soak", "30m", "-o", "soak.pdf")


@pytest.mark.parametrize("beside", [("--precision", "5%"), ("--soak", "30m"), ("--batch", "8")])
def test_a_roofline_is_a_measurement_of_its_own(run, beside):
    with pytest.raises(EdgeOptError, match=r"A roofline is a measurement of its own.*With --roofline, give"):
        run("--roofline", *beside)


def test_only_a_browser_has_a_page_to_take_a_picture_of(run):
    with pytest.raises(EdgeOptError, match=r"Only a browser has a page.*Received: local\. Add --device browser"):
        run("--screenshot", "page.png")


@pytest.mark.parametrize("file", ["page.jpg", "no-such-folder/page.png"])
def test_a_picture_is_a_png_in_a_folder_that_exists(run, file):
    with pytest.raises(EdgeOptError, match=f"PNG file in a folder that exists.*{file}"):
        run("--screenshot", file, "--device", "browser")


def test_a_soak_is_a_measurement_of_its_own(run):
    with pytest.raises(EdgeOptError, match="measurement of its own"):
        run("--soak", "30m", "--precision", "5%")


def test_a_machine_too_noisy_is_inconclusive_with_exit_code_5(run):
    noise = Measurement(
        name="latency_noise_ratio",
        value=1.0,
        unit="1",
        interval=Interval(low=0.8, high=1.2, method="m"),
        device="board",
        conditions={"inconclusive": "an engine differs from itself by up to 25.0%"},
    )
    code, output, asked = run("--precision", "5%", measured=(noise,))
    assert code == 5
    assert "INCONCLUSIVE: an engine differs from itself by up to 25.0%." in output
    assert asked["precision"] == 0.05


def test_a_warm_up_that_was_not_steady_is_a_warning(run):
    p50 = Measurement(
        name="latency_p50_ms", value=1.0, unit="ms", device="board", conditions={"warmup_converged": False}
    )
    code, output, _ = run(measured=(p50,))
    assert code == 0
    assert "not steady yet" in output
