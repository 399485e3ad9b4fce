"""The Dockerfile: by a container tool where there is one, else by a script that carries out its steps without one."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

import pytest

from scripts.container_steps import KEY, ROOT, ask, steps, words_of

DOCKERFILE = list(steps((ROOT / "Dockerfile").read_text(encoding="utf-8")))
HOW_TO = (ROOT / "docs" / "how-to" / "serve.md").read_text(encoding="utf-8")


def last(name: str) -> str:
    return [rest for other, rest in DOCKERFILE if other == name][-1]


def command(start: str) -> list[str]:
    """The words of the how-to's command that starts so."""
    found = re.search(rf"^{start}.*(\\\n.*)*", HOW_TO, re.MULTILINE)
    assert found
    return shlex.split(found[0].replace("\\\n", " "))


def test_what_must_hold_of_the_image() -> None:
    names = [name for name, _ in DOCKERFILE]
    assert last("USER") == "65532:65532"
    assert not [rest for name, rest in DOCKERFILE[names.index("USER") :] if name in ("RUN", "COPY", "ADD")]
    assert words_of(last("HEALTHCHECK"))[0] == "python"
    assert words_of(last("ENTRYPOINT")) == ["mmsent"]
    assert words_of(last("CMD")) == ["serve", "--host", "0.0.0.0", "--port", "8000"]
    assert f":{last('EXPOSE')}/healthz" in last("HEALTHCHECK")
    hosts = re.findall(r"\w+://([^/:]+)", "\n".join(rest for _, rest in DOCKERFILE))
    assert set(hosts) == {"127.0.0.1"}  # an index is named as it is built


def test_what_is_copied_is_sent_to_the_builder_and_nothing_else() -> None:
    sources = {word for name, rest in DOCKERFILE if name == "COPY" and rest[0] != "-" for word in rest.split()[:-1]}
    sent = {line[1:] for line in (ROOT / ".dockerignore").read_text(encoding="utf-8").split() if line.startswith("!")}
    assert sources == sent
    assert all((ROOT / source).exists() for source in sources)


def test_the_how_to_runs_it_shut() -> None:
    words = command("docker run")
    assert {"--read-only", "--tmpfs", "-v", "MMSENT_API_KEY=choose-a-long-one"} <= set(words)
    assert words[words.index("--tmpfs") + 1] == "/tmp"
    assert words[words.index("-v") + 1] == "$PWD:$PWD:ro"
    assert words[-1] == command("docker build")[-2] == "mmsent"


@pytest.fixture
def mounted(small: Path) -> Iterator[Path]:
    """A folder with a cache and runs that everybody may read, as those of tests may not be."""
    with tempfile.TemporaryDirectory() as made:
        Path(made).chmod(0o755)
        for name in ("cache", "runs"):
            shutil.copytree(small / name, Path(made) / name)
        yield Path(made)


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the script reads /proc")
def test_its_steps_without_a_container_tool(mounted: Path) -> None:
    words = [sys.executable, ROOT / "scripts" / "container_steps.py", mounted]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert re.search(r"^healthy after \d+ s, as user [1-9]\d*$", done.stdout, re.MULTILINE)
    assert re.search(r"^a post is labelled (negative|neutral|positive)$", done.stdout, re.MULTILINE)
    assert "wrote nothing into the image or the folder" in done.stdout


def tool() -> str | None:
    """A container tool that works here."""
    for name in ("docker", "podman"):
        if shutil.which(name) and subprocess.run([name, "info"], capture_output=True, check=False).returncode == 0:
            return name
    return None


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_in_a_container(mounted: Path) -> None:
    """Built and run by the how-to's own commands, on a free port."""
    name = tool()
    if name is None:
        pytest.skip("no container tool works here; its steps are tested without one")

    def run(*words: str) -> str:
        return subprocess.run([name, *words], capture_output=True, text=True, check=True, cwd=ROOT).stdout.strip()

    build = [word for word in command("docker build") if "TORCH_INDEX" not in word and word != "--build-arg"]
    run(*build[1:])
    given = [word.replace("$PWD", str(mounted)).replace("choose-a-long-one", KEY) for word in command("docker run")]
    given[given.index("127.0.0.1:8000:8000")] = "127.0.0.1::8000"
    made = run("run", "-d", *given[2:])
    try:
        port = int(run("port", made, "8000").splitlines()[0].rpartition(":")[2])
        wait(lambda: urlopen(f"http://127.0.0.1:{port}/healthz").status == 200)
        wait(lambda: subprocess.run([name, "exec", made, *words_of(last("HEALTHCHECK"))], check=False).returncode == 0)
        assert ask(port)["label"] in json.loads(urlopen(f"http://127.0.0.1:{port}/info").read())["labels"]
        assert run("exec", made, "id", "-u") == "65532"
        assert subprocess.run([name, "exec", made, "touch", "/opt/x"], check=False).returncode != 0
    finally:
        run("stop", made)
        status = run("inspect", "--format", "{{.State.ExitCode}}", made)
        run("rm", made)
    assert status == "0"


def wait(works: Callable[[], bool]) -> None:
    until = time.monotonic() + 120
    while time.monotonic() < until:
        try:
            if works():
                return
        except (URLError, OSError):
            pass
        time.sleep(1)
    raise AssertionError("it did not become healthy")
