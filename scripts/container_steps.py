#!/usr/bin/env python
"""The steps of the Dockerfile where there is no container tool: its RUN lines in a folder that stands for the image,
then its command as a user who may write nothing there, and its health check.

    python scripts/container_steps.py FOLDER

FOLDER holds cache/ and runs/, as it would be mounted. Nothing is downloaded: what pip would fetch is taken from the
packages of this Python, and FROM is this Python itself. As root the server runs as the Dockerfile's USER.
"""

from __future__ import annotations

import argparse
import base64
import io
import json
import os
import re
import shlex
import socket
import stat
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from string import Template
from urllib.request import Request, urlopen

from PIL import Image

ROOT = Path(__file__).resolve().parent.parent
KEY = "a-key-for-these-steps"
SECONDS = 600  # until it must be healthy
# Without these capabilities root could write anywhere; with this one a user may read what belongs to root.
DROP = [
    "--clear-groups",
    "--no-new-privs",
    *(f"--{kind}=-all,+dac_read_search" for kind in ("inh-caps", "bounding-set")),
]


def steps(text: str) -> Iterator[tuple[str, str]]:
    """Each instruction of a Dockerfile and what follows it."""
    lines = "\n".join(line for line in text.splitlines() if not line.lstrip().startswith("#"))
    for line in re.sub(r"\\\n\s*", "", lines).splitlines():
        if line.strip():
            name, _, rest = line.strip().partition(" ")
            yield name.upper(), rest.strip()


def words_of(rest: str) -> list[str]:
    """The words of a command in its exec form, whatever options stand before it."""
    found: list[str] = json.loads(rest[rest.index("[") :])
    return found


class Stand:
    """A folder in the place of an image, and what the Dockerfile says of it. tmp: what stands for its /tmp."""

    def __init__(self, image: Path, tmp: Path, port: int) -> None:
        self.image, self.tmp, self.port = image, tmp, port
        self.user, self.commands = "", {"ENTRYPOINT": [], "CMD": [], "HEALTHCHECK": []}
        self.ran = 0
        self._environment: dict[str, str] = {}

    def take(self, name: str, rest: str) -> None:
        """Carry out one instruction."""
        rest = self._placed(rest)
        if name == "FROM":
            here = os.pathsep.join([str(Path(sys.executable).parent), "/usr/bin", "/bin"])
            self._environment = {"PATH": here, "LANG": "C.UTF-8", "TMPDIR": str(self.tmp)}
        elif name in ("ARG", "ENV"):
            for pair in shlex.split(rest):
                key, _, value = pair.partition("=")
                self._environment[key] = Template(value).substitute(self._environment)
        elif name == "COPY" and not rest.startswith("--from"):
            *sources, to = rest.split()
            Path(to).mkdir(parents=True, exist_ok=True)
            inside = [f"{source}/." if (ROOT / source).is_dir() else source for source in sources]
            subprocess.run(["cp", "-r", *inside, to], cwd=ROOT, check=True)
        elif name == "RUN":
            instead = {"PIP_NO_INDEX": "1", "PIP_NO_BUILD_ISOLATION": "0", "PIP_CONFIG_FILE": os.devnull}
            instead |= {"PIP_DISABLE_PIP_VERSION_CHECK": "1", "PIP_QUIET": "1"}
            subprocess.run(["/bin/sh", "-ec", rest], env=self._environment | instead, cwd=self.tmp, check=True)
            for packages in self.image.glob("opt/*/lib/python*/site-packages"):
                (packages / "those-of-this-python.pth").write_text(sysconfig.get_path("purelib"))
            self.ran += 1
        elif name == "USER":
            self.user = rest
        elif name in self.commands:
            self.commands[name] = words_of(rest)

    def _placed(self, text: str) -> str:
        """The image's paths and port as they are here."""
        places = {"tmp": self.tmp} | {name: self.image / name for name in ("opt", "src", "data")}
        text = text.replace("8000", str(self.port))
        return re.sub(rf"(?<![\w./])/({'|'.join(places)})\b", lambda found: str(places[found[1]]), text)

    def start(self, words: list[str], folder: Path, out: int | None = None) -> subprocess.Popen[str]:
        """Start a command in the image as its user; one that is not root is that user already. out: as of Popen."""
        uid, _, gid = self.user.partition(":")
        drop = ["setpriv", "--reuid", uid, "--regid", gid or uid, *DROP, "--ambient-caps=-all,+dac_read_search"]
        return subprocess.Popen(
            [*(drop if os.geteuid() == 0 else []), *words],
            env=self._environment | {"MMSENT_API_KEY": KEY},
            cwd=folder,
            text=True,
            stdout=out,
            stderr=out,
        )

    def healthy(self, folder: Path) -> bool:
        """Whether the health check says so."""
        return self.start(self.commands["HEALTHCHECK"], folder, subprocess.DEVNULL).wait() == 0


def freeze(folder: Path, *, shut: bool) -> None:
    """Nobody may write in a folder; or its owner again."""
    for path in [folder, *folder.rglob("*")]:
        if not path.is_symlink():
            mode = stat.S_IMODE(path.stat().st_mode)
            path.chmod((mode | 0o555 if path.is_dir() else mode | 0o444) & ~0o222 if shut else mode | 0o200)


def contents(folder: Path) -> dict[str, tuple[int, int]]:
    """When each file was last written, and its size."""
    return {str(path): ((found := path.lstat()).st_mtime_ns, found.st_size) for path in folder.rglob("*")}


def ask(port: int) -> dict[str, object]:
    """The answer to one post."""
    out = io.BytesIO()
    Image.new("RGB", (64, 64), (220, 180, 60)).save(out, "PNG")
    post = {"text": "what a lovely day", "image": base64.b64encode(out.getvalue()).decode()}
    headers = {"content-type": "application/json", "authorization": f"Bearer {KEY}"}
    request = Request(f"http://127.0.0.1:{port}/predict", json.dumps(post).encode(), headers)
    with urlopen(request, timeout=60) as answer:
        found: dict[str, object] = json.load(answer)
    return found


def serve(stand: Stand, folder: Path) -> None:
    """Start the server, wait until it is healthy, ask it, and end it."""
    if stand.healthy(folder):
        raise SystemExit("the health check says that a server is well that does not run")
    started = time.monotonic()
    server = stand.start([*stand.commands["ENTRYPOINT"], *stand.commands["CMD"]], folder)
    try:
        while not stand.healthy(folder):
            if server.poll() is not None or time.monotonic() > started + SECONDS:
                raise SystemExit("the server did not become healthy")
            time.sleep(2)
        user = Path(f"/proc/{server.pid}").stat().st_uid
        print(f"healthy after {time.monotonic() - started:.0f} s, as user {user}")
        print(f"a post is labelled {ask(stand.port)['label']}")
    finally:
        server.terminate()
        try:
            status = server.wait(120)
        except subprocess.TimeoutExpired:
            server.kill()
            raise
    if status or not user:
        raise SystemExit(f"the server ran as user {user} and ended with status {status}")


def main() -> None:
    """Carry the Dockerfile out."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    folder = parser.parse_args().folder.resolve()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with tempfile.TemporaryDirectory(prefix="mmsent-image-") as made, tempfile.TemporaryDirectory() as tmp:
        stand = Stand(Path(made), Path(tmp), port)
        Path(tmp).chmod(0o777)
        for name, rest in steps((ROOT / "Dockerfile").read_text(encoding="utf-8")):
            stand.take(name, rest)
        freeze(stand.image, shut=True)
        before = contents(stand.image) | contents(folder)
        print(f"built in {stand.ran} steps; the image is read-only now")
        try:
            serve(stand, folder)
        finally:
            after = contents(stand.image) | contents(folder)
            freeze(stand.image, shut=False)
        if changed := sorted(path for path in before | after if before.get(path) != after.get(path)):
            raise SystemExit(f"written into the image or the folder: {changed[:5]}")
    print("it ended with status 0 and wrote nothing into the image or the folder")


if __name__ == "__main__":
    main()
