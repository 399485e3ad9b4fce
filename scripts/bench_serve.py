"""How much `mmsent serve` answers under load, and whether every answer is right.

    python scripts/bench_serve.py --data mvsa-single --runs runs     # a minute a part
    python scripts/bench_serve.py --short                            # drawn posts, seconds a part, for CI

Parts, against one server after another, each a process of its own, with the offline encoders:

1. one client, one request at a time;
2. 64 clients at once, each with its next request as soon as it has an answer;
3. far more clients than the queue takes, then one again: it sheds, and recovers;
4. a server that is ended with SIGTERM in the middle of the load and started again; then the same with SIGKILL.

Every answer is compared with what mmsent.inference.predict says of that post (labels equal, probabilities within 1e-5),
and every request is accounted for. The clients share the machine's cores with the server.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from bench_common import machine, table

from mmsent.data.dataset import load_dataset
from mmsent.features.new_posts import NewPost
from mmsent.inference.predict import Prediction, predict
from mmsent.training.runs import Run, list_runs

CLIENTS, TOLERANCE = 64, 1e-5
VOTING = ("concat", "weighted", "attention")
START = "from mmsent.cli.main import main; main()"


class Server:
    """`mmsent serve` in a process of its own."""

    def __init__(self, runs: Sequence[Run], data: Path, port: int = 0, *more: str) -> None:
        names = [str(run.path) for run in runs]
        self.process = subprocess.Popen(
            [sys.executable, "-c", START, "serve", *names, "--data", str(data), "--port", str(port), *more],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        assert self.process.stdout is not None
        found = re.search(r"http://[^/]*:(\d+)/", self.process.stdout.readline())
        if found is None:
            raise SystemExit("the server did not start; run mmsent serve to see why")
        self.port = int(found[1])

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Send a signal and wait; the exit status."""
        self.process.send_signal(number)
        return self.process.wait(timeout=60)


@dataclass
class Outcome:
    """What became of the requests of one part: seconds of the right answers, and a count of everything."""

    seconds: list[float] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)
    took: float = 0.0

    @property
    def rate(self) -> float:
        """Right answers a second."""
        return self.counts["right"] / self.took

    def quantile(self, q: float) -> str:
        """A quantile of the seconds, in milliseconds."""
        return f"{1000 * float(np.quantile(self.seconds, q)):.0f}" if self.seconds else ""


class Connection:
    """A client's connection, as light as can be: it shares the cores with the server. keep: use it again."""

    def __init__(self, port: int, keep: bool) -> None:
        self._port, self._keep = port, keep
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def ask(self, request: bytes) -> tuple[int, dict[str, str], bytes]:
        """Send a request; status, headers and body of the answer. Raises OSError and EOFError as sockets do."""
        if self._streams is None:
            self._streams = await asyncio.open_connection("127.0.0.1", self._port)
        reader, writer = self._streams
        try:
            writer.write(request)
            await writer.drain()
            first, *rest = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
            headers = dict(line.lower().split(": ", 1) for line in rest if line)
            body = await reader.readexactly(int(headers["content-length"]))
        except BaseException:
            self.close()
            raise
        if not self._keep or headers.get("connection") == "close":
            self.close()
        return int(first.split()[1]), headers, body

    def close(self) -> None:
        """Hang up."""
        if self._streams is not None:
            self._streams[1].close()
        self._streams = None


class Load:
    """Clients that ask about posts in turn, as forms. wanted: what predict says of each."""

    def __init__(self, posts: Sequence[NewPost], wanted: Sequence[Prediction]) -> None:
        self.wanted = wanted
        self.requests = [form(post) for post in posts]
        self._next = 0

    def right(self, which: int, body: bytes) -> bool:
        """Whether an answer is what predict says."""
        found, wanted = json.loads(body), self.wanted[which]
        apart = (abs(found["probabilities"][name] - p) for name, p in wanted.probabilities.items())
        return found["label"] == wanted.label and found["heads"] == wanted.heads and max(apart) <= TOLERANCE

    async def client(self, connection: Connection, until: float, out: Outcome) -> None:
        """Ask until a time; what has been asked by then is still waited for."""
        while time.perf_counter() < until:
            which, self._next = self._next % len(self.requests), self._next + 1
            started = time.perf_counter()
            out.counts["sent"] += 1
            try:
                status, headers, body = await asyncio.wait_for(connection.ask(self.requests[which]), 120)
            except ConnectionRefusedError:
                out.counts["refused"] += 1
                await asyncio.sleep(0.05)
            except (OSError, EOFError):
                out.counts["cut off"] += 1
                await asyncio.sleep(0.05)
            else:
                if status == 503:
                    out.counts["shed"] += 1
                    await asyncio.sleep(float(headers["retry-after"]))
                elif status == 200 and self.right(which, body):
                    out.counts["right"] += 1
                    out.seconds.append(time.perf_counter() - started)
                else:
                    out.counts["wrong"] += 1
        connection.close()

    def run(self, port: int, clients: int, seconds: float, *, fresh: bool = False) -> Outcome:
        """So many clients for so many seconds. fresh: a new connection for each request."""
        out = Outcome()

        async def all_of_them() -> None:
            until = time.perf_counter() + seconds
            await asyncio.gather(*(self.client(Connection(port, not fresh), until, out) for _ in range(clients)))

        started = time.perf_counter()
        asyncio.run(all_of_them())
        out.took = time.perf_counter() - started
        return out


def form(post: NewPost) -> bytes:
    """A post as a whole request."""
    assert isinstance(post.image, Path)
    assert post.text is not None
    parts = [
        b'--b0undary\r\nContent-Disposition: form-data; name="text"\r\n\r\n' + post.text.encode(),
        b'--b0undary\r\nContent-Disposition: form-data; name="image"; filename="a"\r\n\r\n' + post.image.read_bytes(),
        b"--b0undary--\r\n",
    ]
    body = b"\r\n".join(parts)
    head = (
        "POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Type: multipart/form-data; boundary=b0undary\r\n"
        f"Content-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


def restarted(load: Load, runs: Sequence[Run], data: Path, number: int, seconds: float) -> tuple[Outcome, int, float]:
    """Load on a server that gets a signal in the middle and is started again: the outcome, the exit status, and the
    seconds without a server."""
    server = Server(runs, data)
    done: list[Outcome] = []
    asking = threading.Thread(
        target=lambda: done.append(load.run(server.port, CLIENTS // 4, 2 * seconds + 15, fresh=True))
    )
    asking.start()
    time.sleep(seconds)
    gone = time.perf_counter()
    status = server.stop(number)
    again = Server(runs, data, server.port)
    without = time.perf_counter() - gone
    asking.join()
    again.stop()
    return done[0], status, without


def drawn(folder: Path) -> tuple[Path, Path]:
    """A data set of drawn posts, and runs on it."""
    from mmsent.cli.quickstart import run_quickstart as quickstart

    quickstart(folder, n_train=90, n_test=30, seed=0)
    return folder / "data", folder / "runs"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="data set whose test posts are asked about")
    parser.add_argument("--runs", type=Path, default=Path("runs"))
    parser.add_argument("--posts", type=int, default=256, help="test posts to ask about, in turn")
    parser.add_argument("--seconds", type=float, default=60, help="of each part")
    parser.add_argument("--parts", default="load,shed,restart")
    parser.add_argument("--short", action="store_true", help="drawn posts, a few seconds a part")
    given = parser.parse_args()
    machine()
    with tempfile.TemporaryDirectory() as folder:
        if given.short:
            given.seconds, given.posts = 4.0, 24
        if given.data is None:
            given.data, given.runs = drawn(Path(folder))
        ok = measure(given.data, given.runs, given.posts, given.seconds, given.parts.split(","))
    sys.exit(not ok)


def measure(data: Path, folder: Path, n: int, seconds: float, parts: Sequence[str]) -> bool:
    """Run the parts and print them; whether no answer was wrong and none was lost."""
    newest: dict[str, Run] = {}
    for run in list_runs(folder):
        newest.setdefault(run.fusion.value, run)
    runs = [newest[name] for name in VOTING if name in newest]
    dataset = load_dataset(data, runs[0].data_settings)
    posts = [NewPost(p.id, dataset.text_of(p), p.image) for p in list(dataset.of("test"))[:n]]
    wanted = predict(posts, runs)
    load = Load(posts, wanted)
    rows = [["", "clients", "requests", "right", "wrong", "lost", "shed", "posts/s", "p50, ms", "p99, ms"]]
    outcomes: list[Outcome] = []

    def add(name: str, clients: int, out: Outcome) -> None:
        c = out.counts
        lost = c["sent"] - c["right"] - c["wrong"] - c["shed"] - c["refused"] - c["cut off"]
        lost += c["cut off"] + c["refused"]
        numbers = [clients, c["sent"], c["right"], c["wrong"], lost, c["shed"]]
        rows.append([name, *map(str, numbers), f"{out.rate:.1f}", out.quantile(0.5), out.quantile(0.99)])
        outcomes.append(out)
        print(f"{name}: {dict(c)} in {out.took:.1f} s", file=sys.stderr, flush=True)

    if "load" in parts:
        server = Server(runs, data)
        load.run(server.port, 4, min(2.0, seconds))  # warm up
        single = load.run(server.port, 1, seconds)
        add("one at a time", 1, single)
        many = load.run(server.port, CLIENTS, seconds)
        add(f"{CLIENTS} at once", CLIENTS, many)
        server.stop()
    if "shed" in parts:
        server = Server(runs, data, 0, "--queue", str(CLIENTS))
        add(f"{5 * CLIENTS} at once, a queue of {CLIENTS}", 5 * CLIENTS, load.run(server.port, 5 * CLIENTS, seconds))
        add("one again", 1, load.run(server.port, 1, min(10.0, seconds)))
        server.stop()
    print(f"\n{len(posts)} posts, {len(runs)} heads; {os.cpu_count()} cores for server and clients together")
    if len(rows) > 1:
        print(table(rows))
    if "load" in parts:
        print(f"\n{CLIENTS} at once answer {many.rate / single.rate:.2f} times as many posts a second as one at a time")
    ok = all(not out.counts["wrong"] and not out.counts["cut off"] and not out.counts["refused"] for out in outcomes)
    if "restart" in parts:
        rows = [["signal", "exit status", "seconds without a server", "right", "wrong", "refused", "cut off"]]
        for number in (signal.SIGTERM, signal.SIGKILL):
            out, status, without = restarted(load, runs, data, number, min(10.0, seconds))
            c = out.counts
            cells = [c["right"], c["wrong"], c["refused"], c["cut off"]]
            rows.append([number.name, str(status), f"{without:.1f}", *map(str, cells)])
            ok = ok and not c["wrong"] and not (number == signal.SIGTERM and c["cut off"])
        print("\n" + table(rows))
    print("\nevery answer is what mmsent.inference.predict says" if ok else "\nsome answers were wrong or lost")
    return ok


if __name__ == "__main__":
    main()
