"""A disk that is full: the study's folder lies on a small file system whose free space is set to a level;
the run ends with 4 and one line; with space made, --resume gives the undisturbed study."""
import os
import shutil
import subprocess
import time

from support import KINDS, setups


class Disk:
    """A file system of `megabytes` of its own."""

    def __init__(self, chaos, megabytes):
        self.path = chaos.tmp / "disk"
        self.path.mkdir()
        self.why = ""
        image = chaos.tmp / "disk.img"
        with open(image, "wb") as file:
            file.truncate(megabytes << 20)
        steps = [["mkfs.ext4", "-q", "-F", "-m", "0", "-O", "^has_journal", str(image)],
                 ["mount", "-o", "loop", str(image), str(self.path)]]
        if os.geteuid() != 0:
            self.why = "mounting needs root"
        elif not all(self.run(step) for step in steps) and \
                not self.run(["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs", str(self.path)]):
            self.why = "mounting is refused here"
        self.kind = "" if self.why else subprocess.run(["stat", "-f", "-c", "%T", str(self.path)],
                                                       capture_output=True, text=True).stdout.strip()

    @staticmethod
    def run(command):
        return subprocess.run(command, capture_output=True).returncode == 0

    def free(self):
        space = os.statvfs(self.path)
        return space.f_bavail * space.f_frsize

    def fill(self, left):
        """Take all but `left` bytes."""
        with open(self.path / "filler", "wb", buffering=0) as file:
            take = max(0, self.free() - left)
            while take > 0:
                try:
                    take -= file.write(b"\0" * min(take, 1 << 16))
                except OSError:
                    return

    def close(self):
        if not self.why:
            subprocess.run(["umount", "-l", str(self.path)], capture_output=True)


def level(chaos, disk, setup, left, instant):
    """The disk is filled `instant` seconds after the start: what the program asks before it begins does not
    help then."""
    folder = disk.path / "work"
    folder.mkdir()
    started = chaos.start(folder, setup[1], chaos.command(setup[0]))
    time.sleep(instant)
    disk.fill(left)
    run = chaos.finish(started)
    study = folder / "study"
    why = ""
    if run.code == 124:
        why = "HANG"
    elif run.code not in (0, 4):
        why = f"code: {run}"
    elif run.code == 4 and len(run.errors) != 1:
        why = f"lines: {run}"
    elif run.code == 4 and study.exists():
        why = chaos.wrong_final(study, *setup)
        if not why and chaos.partial(study):
            why = "partial files are left: " + chaos.partial(study)
    elif run.code == 0:
        why = chaos.differs(study, *setup)
    (disk.path / "filler").unlink()
    if not why and run.code == 4:
        why = chaos.resumed(study, *setup)
    why = why or chaos.touched()
    shutil.rmtree(folder)
    if why:
        why = f"{setup[0]}, {setup[1]} ranks, {left} bytes left after {instant:.2f} s: {why}"
        print(f"# DEFECT {why}", flush=True)
    return run.code, why


def main(chaos, number):
    disk = Disk(chaos, 24)
    if disk.why:
        print(f"ok 1 - full disks # SKIP {disk.why}\n1..1")
        return {}
    try:
        kinds = {"full disks": []}
        full = 0
        needs = {kind: sum(path.stat().st_size + 4096 for path in chaos.undisturbed(kind).rglob("*")
                           if path.is_file()) for kind in KINDS}
        for kind, ranks in setups(number):
            left = int(chaos.random.choice((0, 1, 1, 1, 2)) * chaos.random.uniform(0, 1) * needs[kind])
            instant = max(0, chaos.random.uniform(-0.2, 1)) * chaos.seconds[kind, 2]
            code, why = level(chaos, disk, (kind, ranks), left, instant)
            full += code == 4
            kinds["full disks"].append(why)
        print(f"# {number} fill levels of {disk.kind}, {full} of them ended with 4; a study needs "
              f"{needs['hdf5']} (hdf5) and {needs['safetensors']} (safetensors) bytes")
        return kinds
    finally:
        disk.close()
