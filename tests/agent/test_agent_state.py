from __future__ import annotations

import time

import pytest

from edgeopt.agent.energy import find_counter, measured_energy
from edgeopt.agent.loops import arrivals, timed, warmed
from edgeopt.agent.state import read_state


def tree(root, files):
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{text}\n")
    return root


def test_nothing_readable_is_no_error(tmp_path):
    found = read_state(tmp_path)
    assert set(found) <= {"affinity", "cpu_own_s"}


def test_a_board_tells_its_state(tmp_path):
    cpu = "sys/devices/system/cpu/"
    root = tree(
        tmp_path,
        {
            cpu + "cpu0/cpufreq/scaling_governor": "performance",
            cpu + "cpu0/cpufreq/scaling_cur_freq": 1_400_000,
            cpu + "cpu1/cpufreq/scaling_cur_freq": 1_600_000,
            cpu + "cpu0/cpufreq/cpuinfo_max_freq": 2_000_000,
            cpu + "cpu0/thermal_throttle/core_throttle_count": 3,
            cpu + "cpu0/thermal_throttle/package_throttle_count": 4,
            "sys/class/thermal/thermal_zone0/temp": 48_500,
            "sys/class/thermal/thermal_zone1/temp": 61_200,
            "sys/class/thermal/thermal_zone2/temp": -256_000,  # not wired up
            "sys/class/thermal/thermal_zone3/temp": "nonsense",
            "proc/loadavg": "0.50 0.40 0.30 1/200 999",
            "proc/stat": "cpu  100 0 50 800 50 0 0 0 0 0\ncpu0 1 2 3",
            "proc/self/statm": "5000 2560 100",
        },
    )
    found = read_state(root)
    assert (found["governor"], found["frequency_mhz"], found["frequency_max_mhz"]) == ("performance", 1500, 2000)
    assert (found["temperature_c"], found["throttle_count"]) == (61.2, 7)
    assert found["load_average"] == "0.50 0.40 0.30"
    assert found["cpu_total_s"] / found["cpu_busy_s"] == pytest.approx(1000 / 150)
    assert found["rss_mib"] == pytest.approx(10.0)  # 2,560 pages of 4 KiB


RAPL = {
    "sys/class/powercap/intel-rapl:0/name": "package-0",
    "sys/class/powercap/intel-rapl:0/energy_uj": 999_000_000,
    "sys/class/powercap/intel-rapl:0/max_energy_range_uj": 1_000_000_000,
    "sys/class/powercap/intel-rapl:0:0/name": "core",
    "sys/class/powercap/intel-rapl:0:0/energy_uj": 5,
    "sys/class/powercap/intel-rapl:1/name": "psys",
    "sys/class/powercap/intel-rapl:1/energy_uj": 7,
}


def test_rapl_counts_packages_once_and_across_a_wrap(tmp_path):
    root = tree(tmp_path, RAPL)
    counter = root / "sys/class/powercap/intel-rapl:0/energy_uj"

    def run():
        counter.write_text("2000000\n")  # 1 J to the wrap, 2 J beyond

    found = measured_energy(run, 0.0, root)
    assert (found["joules"], found["n"], found["counter"]) == (pytest.approx(3.0), 1, "RAPL, package-0")


def test_a_counter_that_stands_still_is_no_energy(tmp_path):
    assert "did not move" in measured_energy(lambda: None, 0.0, tree(tmp_path, RAPL))["unavailable"]


def test_a_jetson_tells_the_whole_boards_power(tmp_path):
    chip = "sys/class/hwmon/hwmon3/"
    files = {
        "name": "ina3221",
        "in1_label": "VDD_IN",
        "in1_input": 5000,
        "curr1_input": 2000,
        "in2_label": "VDD_CPU_GPU_CV",
        "in2_input": 5000,
        "curr2_input": 1000,
        "in7_label": "sum of shunt voltages",
        "in7_input": 3,
    }
    root = tree(tmp_path, {chip + name: text for name, text in files.items()})
    found = measured_energy(lambda: time.sleep(0.02), 0.2, root)
    assert found["counter"] == "INA, VDD_IN"
    assert found["joules"] / found["seconds"] == pytest.approx(10.0, rel=0.2)


def test_a_phones_battery_tells_energy_only_while_it_gives_it(tmp_path):
    battery = "sys/class/power_supply/battery/"
    files = {"type": "Battery", "status": "Charging", "voltage_now": 4_000_000, "current_now": -500_000}
    root = tree(tmp_path, {battery + name: text for name, text in files.items()})
    assert "the battery is charging" in measured_energy(lambda: None, 0.0, root)["unavailable"]
    (root / battery / "status").write_text("Discharging\n")
    found = measured_energy(lambda: time.sleep(0.02), 0.1, root)
    assert found["joules"] / found["seconds"] == pytest.approx(2.0, rel=0.2)


def test_no_counter_says_what_was_looked_for(tmp_path):
    assert find_counter(tmp_path) == "no energy counter: RAPL is not there; no INA power monitor; no battery"


def test_a_sensor_that_goes_away_is_a_reason(tmp_path):
    battery = "sys/class/power_supply/battery/"
    files = {"type": "Battery", "status": "Discharging", "power_now": 4_000_000}
    root = tree(tmp_path, {battery + name: text for name, text in files.items()})
    found = measured_energy((root / battery / "power_now").unlink, 0.0, root)
    assert "could not be read" in found["unavailable"]


def test_warm_up_obeys_its_least_its_most_and_its_time():
    assert warmed(lambda: None, 5, None, 0, 0.0)["n"] == 5
    assert warmed(lambda: None, 45, 1e9, 100, 10.0) == pytest.approx({"n": 45, "seconds": 0, "converged": True}, abs=1)
    slow = warmed(lambda: time.sleep(0.005), 2, 1e-9, 10**6, 0.02)
    assert slow["converged"] is False
    assert slow["n"] < 50


def test_a_stall_makes_every_query_late_that_came_meanwhile():
    calls = iter([0.05] + [0.0] * 9)
    found = arrivals(lambda: time.sleep(next(calls)), [i * 1_000_000 for i in range(10)])
    waited = [ns / 1e6 for ns in found["latency_ns"]]
    assert min(waited) > 40  # the last came 9 ms after the first, which took 50
    assert found["service_ns"][5] < found["latency_ns"][5]


def test_a_query_may_be_several_inferences():
    calls = []
    assert len(timed(lambda: calls.append(1), 3, 4)["latency_ns"]) == 3
    assert len(calls) == 12


def test_the_runtimes_own_clock_is_asked_after_each_query():
    asked = iter([10, 20, 30])
    assert timed(lambda: None, 3, 1, lambda: next(asked))["runtime_ns"] == [10, 20, 30]


def test_a_query_of_several_inferences_has_no_time_of_the_runtimes_own():
    assert timed(lambda: None, 2, 3, lambda: 1)["runtime_ns"] is None
    assert timed(lambda: None, 2, 1)["runtime_ns"] is None
