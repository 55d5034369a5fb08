"""Builds .venv with pip from the locks in requirements/: what `make demo` and `make test` need, nothing that is there already.

Every step leaves a stamp holding its locks' digest, written last: an interrupted set-up goes on where it stopped, a changed
lock is installed by the next `make`. Knows only the standard library, since it runs before anything is installed.
"""

from __future__ import annotations

import argparse
import hashlib
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LOCKS = ROOT / "requirements"
CUDA_BUILD_DOWNLOAD_GB = 2.6  # torch 2.13.0 with its CUDA packages
CUDA_BUILD_DISK_GB = 7.0  # the same unpacked (4 GB) beside pip's cache of it
ENGINES = {"cpu": "vLLM for the CPU", "cuda": "vLLM for CUDA with its torch (7 GB of disk)"}
HOW_TO_GIVE_A_CPU_BUILD = (
    "To use the CPU build instead (0.2 GB), tell pip where one is: set PIP_EXTRA_INDEX_URL to PyTorch's index of CPU "
    "wheels (its address is in PyTorch's installation guide), or PIP_FIND_LINKS to a folder holding the file; run make again."
)


class SetupError(Exception):
    """The environment cannot be built; the message says what to do."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--venv", type=Path, default=ROOT / ".venv", help="where to build it (default: .venv)")
    parser.add_argument(
        "--engine", choices=list(ENGINES), default="cpu", help="vLLM's build; one environment holds one"
    )
    parser.add_argument("--dev", action="store_true", help="with what tests and checks need")
    parser.add_argument("--suits", action="store_true", help="only say by exit code whether this Python will do")
    chosen = parser.parse_args()
    if not this_python_was_tried():
        print(f"Python {sys.version.split()[0]} will not do: prelabel needs {tried_pythons()}.", file=sys.stderr)
        return 1
    if chosen.suits:
        return 0
    try:
        Environment(chosen.venv.absolute(), chosen.engine).bring_up_to_date(dev=chosen.dev)
    except SetupError as problem:
        print(f"\n{problem}", file=sys.stderr)
        return 1
    return 0


def tried_pythons() -> str:
    """The project's requires-python, such as ">=3.11,<3.12"."""
    found = re.search(r'^requires-python = "(.+?)"', (ROOT / "pyproject.toml").read_text("utf-8"), re.MULTILINE)
    assert found, "pyproject.toml has lost its requires-python"
    return found.group(1)


def this_python_was_tried() -> bool:
    lowest, below = re.findall(r"3\.(\d+)", tried_pythons())
    return sys.version_info[0] == 3 and int(lowest) <= sys.version_info[1] < int(below)


class Environment:
    """A virtual environment and the record of what was installed into it."""

    def __init__(self, folder: Path, engine: str) -> None:
        self.folder = folder
        self.engine = engine
        self.python = folder / "bin" / "python"
        self.stamps = folder / "installed"

    def bring_up_to_date(self, *, dev: bool) -> None:
        self._create()
        self._refuse_the_other_engine()
        self._forget_half_installed()
        self._step("packages", "packages", [LOCKS / "base.txt"])
        if self.engine == "cpu":
            locks = [LOCKS / "torch-cpu-build.txt", LOCKS / "torch-cuda-build.txt"]
            self._step("torch", "torch", locks, install=self._install_torch)
        self._step(f"engine-{self.engine}", ENGINES[self.engine], [LOCKS / f"{self.engine}.txt"])
        if self.engine == "cpu":
            shim = Path(__file__).with_name("torchvision_beside_cpu_torch.py")
            locks = [LOCKS / "cpu.txt", LOCKS / "torch-cpu-build.txt", shim]
            self._step("torchvision", "check of torchvision", locks, install=lambda: self._check_torchvision(shim))
        if dev:
            self._step("dev", "tools for tests and checks", [LOCKS / "dev.txt"])
            lock = LOCKS / "seaweedfs.txt"
            self._step(
                "seaweedfs", "S3 server for tests", [lock], install=lambda: self._pip("--require-hashes", "-r", lock)
            )
        self._step("prelabel", "prelabel itself", [ROOT / "pyproject.toml"], install=self._install_project)

    def _create(self) -> None:
        """Makes the virtual environment, again where it was left half made or has been moved: its scripts name its path."""
        stamp = self.stamps / "venv"
        if stamp.is_file() and stamp.read_text() == str(self.folder) and self._runs("-m", "pip", "--version"):
            return
        print(f"Building {self.folder.name}/ with Python {sys.version.split()[0]}", flush=True)
        made = subprocess.run([sys.executable, "-m", "venv", "--clear", self.folder], capture_output=True, text=True)
        if made.returncode:
            raise SetupError(
                f"{made.stdout}{made.stderr}\nPython could not make a virtual environment. "
                "On Debian and Ubuntu the module is a package of its own: install python3-venv, then run make again."
            )
        self.stamps.mkdir()
        stamp.write_text(str(self.folder))

    def _refuse_the_other_engine(self) -> None:
        other = "cuda" if self.engine == "cpu" else "cpu"
        if (self.stamps / f"engine-{other}").exists():
            raise SetupError(
                f"{self.folder} holds vLLM for {other}, and one environment holds one build: "
                f"remove it, or build another with VENV=…, or run make with ENGINE={other}."
            )

    def _forget_half_installed(self) -> None:
        """pip writes a package's RECORD last and takes a package without one for installed: after a kill it would be skipped."""
        for info in self._site_packages().glob("*.dist-info"):
            if not (info / "RECORD").exists():
                shutil.rmtree(info)

    def _step(self, name: str, what: str, locks: list[Path], install: Callable[[], None] | None = None) -> None:
        digest = hashlib.sha256(b"\0".join(lock.read_bytes() for lock in locks)).hexdigest()
        stamp = self.stamps / name
        if stamp.is_file() and stamp.read_text() == digest:
            return
        print(f"  {what} … ", end="", flush=True)
        started = time.monotonic()
        if install is None:
            self._pip("--no-deps", *(word for lock in locks for word in ("-r", lock)))
        else:
            install()
        stamp.write_text(digest)
        print(f"{time.monotonic() - started:.0f} s", flush=True)

    def _install_torch(self) -> None:
        """The CPU build where pip's configured sources hold it, else the registry's own build, its size said before."""
        cpu_build = self._try_pip("--no-deps", "-r", LOCKS / "torch-cpu-build.txt")
        if cpu_build.returncode == 0:
            return
        if "No matching distribution" not in cpu_build.stderr:
            raise SetupError(f"{cpu_build.stdout}{cpu_build.stderr}\npip could not install torch's CPU build.")
        free_gb = shutil.disk_usage(self.folder).free / 1e9
        print(
            f"\n  pip's sources hold no CPU build of torch for this Python. Taking the registry's own, a CUDA build that "
            f"runs on the CPU too: {CUDA_BUILD_DOWNLOAD_GB} GB to download.\n  {HOW_TO_GIVE_A_CPU_BUILD}",
            flush=True,
        )
        if free_gb < CUDA_BUILD_DISK_GB:
            raise SetupError(
                f"It needs {CUDA_BUILD_DISK_GB} GB of disk, and {free_gb:.1f} GB are free. {HOW_TO_GIVE_A_CPU_BUILD}"
            )
        self._pip("--no-deps", "-r", LOCKS / "torch-cuda-build.txt")

    def _check_torchvision(self, shim: Path) -> None:
        """Installs the shim where torchvision does not import without it: a CUDA build of it beside torch's CPU build."""
        installed = [self._site_packages() / shim.name, self._site_packages() / f"{shim.stem}.pth"]
        for path in installed:
            path.unlink(missing_ok=True)
        if self._runs("-c", "import torchvision"):
            return
        shutil.copyfile(shim, installed[0])
        installed[1].write_text(f"import {shim.stem}\n")
        if not self._runs("-c", "import torchvision"):
            raise SetupError(f"torchvision does not load beside torch: try {self.python} -c 'import torchvision'.")

    def _install_project(self) -> None:
        self._pip("--no-deps", "--no-build-isolation", "--editable", ROOT)

    def _site_packages(self) -> Path:
        return next((self.folder / "lib").glob("python3.*/site-packages"))

    def _runs(self, *words: str) -> bool:
        try:
            return subprocess.run([self.python, *words], capture_output=True).returncode == 0
        except FileNotFoundError:
            return False

    def _pip(self, *words: str | Path) -> None:
        done = self._try_pip(*words)
        if done.returncode:
            raise SetupError(
                f"{done.stdout}{done.stderr}\npip failed; what it had installed stays, and make goes on from there."
            )

    def _try_pip(self, *words: str | Path) -> subprocess.CompletedProcess[str]:
        # no byte code: Python compiles what it imports, and most of vLLM is never imported
        command = [self.python, "-m", "pip", "install", "--no-compile", "--disable-pip-version-check", *words]
        return subprocess.run(command, capture_output=True, text=True, cwd=ROOT)


if __name__ == "__main__":
    sys.exit(main())
