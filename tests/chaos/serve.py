"""Many runs of the program in processes that stay: MPI and the dynamic linker start once (libfault.c, serve).
The program's own variables are as in a new process at each run. What is found here is looked at again in
new processes."""
import contextlib
import os
import select
import shutil
import signal
import subprocess
import threading
import time

from support import HANG, Run, descendants


def own_state(program):
    """Offsets and lengths of the program's variables, without those that it shares with libraries."""
    sections = subprocess.run(["readelf", "-S", "-W", program], check=True, capture_output=True, text=True).stdout
    bounds = {}
    for line in sections.splitlines():
        words = line.split("]")[-1].split()
        if words and words[0] in (".data", ".bss"):
            bounds[words[0]] = int(words[2], 16), int(words[4], 16)
    relocations = subprocess.run(["readelf", "-r", "-W", program], check=True, capture_output=True, text=True).stdout
    shared = {int(line.split()[0], 16) for line in relocations.splitlines() if "_COPY" in line}
    symbols = subprocess.run(["nm", "-D", "-S", program], check=True, capture_output=True, text=True).stdout
    begin, length = bounds[".bss"]
    end = begin + length
    for line in symbols.splitlines():
        words = line.split()
        if len(words) == 4 and int(words[0], 16) in shared:
            begin = max(begin, int(words[0], 16) + int(words[1], 16))
    return f"{bounds['.data'][0]:x}:{bounds['.data'][1]:x} {begin:x}:{end - begin:x}"


class Ways:
    """How a study is run: in processes of its own, or in those of a server that each thread has."""

    def __init__(self, chaos, library):
        self.chaos, self.library = chaos, library
        self.local, self.servers = threading.local(), []

    def new(self, folder, kind, ranks, resume=False, fault=None):
        env = {"CHAOS_PRELOAD": self.library, "CHAOS_FAULT": fault, "CHAOS_FIRED": str(folder / "fired")}
        if fault == "log":
            env = {"CHAOS_PRELOAD": self.library, "CHAOS_LOG": str(folder / "calls%r")}
        return self.chaos.study(folder, kind, ranks, resume, env=env if fault else None)

    def served(self, folder, kind, ranks, resume=False, fault=None):
        server = getattr(self.local, "server", None)
        if server and (server.ranks != ranks or server.runs >= 400):
            server.end()
            server = None
        if not server:
            server = Server(self.chaos, self.library, ranks)
            self.servers.append(server)
        run, alive = server.run(folder, self.chaos.command(kind, resume), fault or "-")
        self.local.server = server if alive else None
        return run

    def renew(self):
        if getattr(self.local, "server", None):
            self.local.server.end()
            self.local.server = None

    def close(self):
        for server in self.servers:
            server.end()


class Server:
    """`ranks` processes under one mpirun that take runs one after the other."""

    def __init__(self, chaos, library, ranks):
        self.chaos, self.ranks, self.runs, self.ended = chaos, ranks, 0, None
        self.folder = chaos.folder()
        for rank in range(ranks):
            os.mkfifo(self.folder / f"ask{rank}")
            os.mkfifo(self.folder / f"answer{rank}")
        env = {"CHAOS_PRELOAD": library, "CHAOS_SERVE": str(self.folder), "CHAOS_STATE": own_state(chaos.program)}
        self.started = chaos.start(self.folder, ranks, [], env)
        # Open for both directions: no end waits for the other, and none sees an end of file.
        self.asks = [os.open(self.folder / f"ask{rank}", os.O_RDWR) for rank in range(ranks)]
        self.answers = [os.open(self.folder / f"answer{rank}", os.O_RDWR) for rank in range(ranks)]

    def run(self, folder, arguments, fault="-"):
        """Run, and whether the processes are still there."""
        self.runs += 1
        begun = time.monotonic()
        line = "\t".join([fault, str(folder), *arguments]) + "\n"
        for ask in self.asks:
            os.write(ask, line.encode())
        codes = {}
        process = self.started[0]
        while len(codes) < self.ranks and process.poll() is None and time.monotonic() - begun < self.chaos.limit:
            ready, _, _ = select.select(self.answers, [], [], 0.2)
            for answer in ready:
                codes[self.answers.index(answer)] = int(os.read(answer, 64))
        alive = len(codes) == self.ranks
        launcher, noted = 0, codes
        if not alive:
            late = process.poll() is None
            ended = self.end()
            launcher, noted = (HANG, codes) if late else (ended.launcher, {**ended.codes, **codes})
        # An orderly end of a rank that did not answer is not of its doing: it was ended.
        text = "".join((folder / f"text{rank}").read_text(errors="replace") for rank in range(self.ranks)
                       if (folder / f"text{rank}").exists())
        for rank in range(self.ranks):
            with contextlib.suppress(FileNotFoundError):
                (folder / f"text{rank}").unlink()
        return Run(noted, launcher, text, time.monotonic() - begun), alive

    def end(self):
        if self.ended:
            return self.ended
        process = self.started[0]
        if process.poll() is None:
            for pid in [process.pid, *descendants(process.pid)]:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        self.ended = self.chaos.finish(self.started)
        for file in [*self.asks, *self.answers]:
            os.close(file)
        shutil.rmtree(self.folder, ignore_errors=True)
        return self.ended
