"""A second host on this machine: a network namespace with an sshd, its own home, its own host key, behind a veth pair."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

SSHD = shutil.which("sshd") or "/usr/sbin/sshd"


def why_not() -> str:
    """Why there can be no second host here; empty where there can."""
    if not hasattr(os, "geteuid") or os.geteuid() != 0:
        return "needs root for a network namespace"
    for tool in ("ip", "ssh-keygen"):
        if shutil.which(tool) is None:
            return f"needs {tool}"
    if not Path(SSHD).is_file():
        return "needs sshd (Debian: openssh-server)"
    name = f"edgeopt-try{os.getpid()}"
    made = subprocess.run(["ip", "netns", "add", name], capture_output=True, text=True, check=False)
    if made.returncode:
        return f"no network namespace can be made here: {made.stderr.strip()}"
    ip("netns", "del", name)
    return ""


def ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True, text=True)


class SecondHost:
    """``start`` and ``stop`` it; ``cut`` and ``mend`` its line. Its files lie in ``folder``."""

    def __init__(self, folder: Path, number: int = 0):
        self.folder, self.number = folder, number
        # Two test processes may each have second hosts at a time.
        mine = os.getpid()
        self.namespace = f"edgeopt-ns{number}-{mine}"
        self.ours, self.theirs = (
            f"edgeopt{mine % 100_000}{'acegi'[number]}",
            f"edgeopt{mine % 100_000}{'bdfhj'[number]}",
        )
        network = f"10.213.{(5 * mine + number) % 250}"
        self.address, self.gateway = f"{network}.2", f"{network}.1"
        self.port = 2222
        self.home, self.tmp = folder / "device-home", folder / "device-tmp"
        self.small = folder / "small"
        self.client_home = folder / "client-home"
        self.sshd: subprocess.Popen | None = None

    def start(self) -> SecondHost:
        for path in (self.home, self.tmp, self.client_home / ".ssh", self.folder / "etc", self.small):
            path.mkdir(parents=True, exist_ok=True)
        (self.client_home / ".ssh").chmod(0o700)
        Path("/run/sshd").mkdir(exist_ok=True)
        if not (self.folder / "etc" / "host").exists():
            self.key(self.folder / "etc" / "host")
            self.key(self.client_home / ".ssh" / "id_ed25519")
        # A disk of its own, to be filled. Mounted first: a namespace does not see what comes later.
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k", "edgeopt-small", str(self.small)], check=True)
        ip("netns", "add", self.namespace)
        ip("link", "add", self.ours, "type", "veth", "peer", "name", self.theirs, "netns", self.namespace)
        ip("addr", "add", f"{self.gateway}/24", "dev", self.ours)
        ip("link", "set", self.ours, "up")
        ip("-n", self.namespace, "addr", "add", f"{self.address}/24", "dev", self.theirs)
        ip("-n", self.namespace, "link", "set", self.theirs, "up")
        ip("-n", self.namespace, "link", "set", "lo", "up")
        self.serve()
        self.know()
        return self

    def serve(self) -> None:
        config = self.folder / "etc" / "sshd_config"
        config.write_text(
            f"Port {self.port}\nListenAddress {self.address}\nHostKey {self.folder}/etc/host\n"
            f"PidFile {self.folder}/etc/pid\nAuthorizedKeysFile {self.client_home}/.ssh/id_ed25519.pub\n"
            "StrictModes no\nUsePAM no\nPasswordAuthentication no\nKbdInteractiveAuthentication no\n"
            "PermitRootLogin yes\nPermitUserEnvironment no\nMaxSessions 64\nMaxStartups 64\n"
            f"SetEnv HOME={self.home} TMPDIR={self.tmp}\nAcceptEnv none\n"
        )
        with (self.folder / "etc" / "log").open("ab") as log:
            self.sshd = subprocess.Popen(
                ["ip", "netns", "exec", self.namespace, SSHD, "-D", "-e", "-f", str(config)], stderr=log, stdout=log
            )
        for _ in range(100):
            with contextlib.suppress(OSError), socket.create_connection((self.address, self.port), timeout=1):
                return
            time.sleep(0.1)
        raise RuntimeError((self.folder / "etc" / "log").read_text())

    def halt(self) -> None:
        """End the sshd and everything in the namespace."""
        pids = subprocess.run(
            ["ip", "netns", "pids", self.namespace], capture_output=True, text=True, check=False
        ).stdout.split()
        for pid in pids:
            with contextlib.suppress(OSError):
                os.kill(int(pid), 9)
        if self.sshd is not None:
            self.sshd.wait(10)

    def stop(self) -> None:
        self.halt()
        subprocess.run(["umount", "-l", str(self.small)], capture_output=True, check=False)
        for words in (("link", "del", self.ours), ("netns", "del", self.namespace)):
            subprocess.run(["ip", *words], capture_output=True, check=False)

    def cut(self) -> None:
        ip("link", "set", self.ours, "down")

    def mend(self) -> None:
        ip("link", "set", self.ours, "up")

    @staticmethod
    def key(path: Path) -> None:
        path.unlink(missing_ok=True)
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(path)], check=True)

    @property
    def known_hosts(self) -> Path:
        return self.client_home / ".ssh" / "known_hosts"

    def know(self) -> None:
        key = (self.folder / "etc" / "host.pub").read_text().split()[:2]
        self.known_hosts.write_text(f"[{self.address}]:{self.port} {' '.join(key)}\n")

    def url(self, **options: str) -> str:
        options = {"python": sys.executable, **options}
        query = "&".join(f"{name}={value}" for name, value in options.items())
        return f"ssh://root@{self.address}:{self.port}?{query}"

    def left(self) -> list[str]:
        """What runs left on the device."""
        return sorted(path.name for path in self.tmp.iterdir())
