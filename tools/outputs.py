"""Which files the tools of this folder may replace: none that they read, and none that they did not write.

What a tool writes ends with a seal, a line with the SHA-256 of all before it, so that a file which somebody
changed since is known: HDF5 files end after their data with it, HTML pages with a comment. Files that
cannot carry one are never replaced, but where git has them as they are."""
import hashlib
import os
import pathlib
import subprocess

MARK = b"deltapath-sha256 "
COMMENT = b"-->\n"  # what follows the seal of an HTML page


class Refused(SystemExit):
    """An output that cannot be written: one line for the user, with which a tool ends."""


def seal_of(body: bytes) -> bytes:
    return MARK + hashlib.sha256(body).hexdigest().encode() + b" %016x\n" % len(body)


def is_sealed(path: pathlib.Path, after: bytes = b"") -> bool:
    """Whether a file is as a tool wrote it: its seal stands before `after`, at the end."""
    data = path.read_bytes()
    size = len(seal_of(b"")) + len(after)
    return len(data) >= size and data[-size:] == seal_of(data[:-size]) + after


def is_same(a: pathlib.Path, b: pathlib.Path) -> bool:
    """The same file or folder, links followed."""
    try:
        return a.samefile(b)
    except OSError:
        return False


def in_git(path: pathlib.Path) -> bool:
    """Whether git has the bytes of a file, so that nothing is lost with it. What git says of its working tree
    may be told to leave files out."""
    try:
        blob = subprocess.run(["git", "-C", path.parent, "cat-file", "blob", f"HEAD:./{path.name}"],
                              check=False, capture_output=True)
        return blob.returncode == 0 and blob.stdout == path.read_bytes()
    except OSError:
        return False


def check_inputs(path: pathlib.Path, inputs) -> None:
    """An input is never an output; nothing is written into the folder of one, nor over what lies in it."""
    above = [path, *path.absolute().parents, *path.resolve().parents]
    for source in map(pathlib.Path, inputs):
        if source.is_dir() and (any(is_same(p, source) for p in above)
                                or any(is_same(path, file) for file in source.iterdir())):
            raise Refused(f"{path}: lies in the folder of the input {source}, which is never written "
                          "to: give another output")
        if is_same(path, source):
            raise Refused(f"{path}: is the input {source}: give another output")


def is_model(folder: pathlib.Path) -> bool:
    return any(folder.glob("*.safetensors")) and ((folder / "config.json").exists()
                                                  or any(folder.glob("*.index.json")))


def is_part(folder: pathlib.Path) -> bool:
    """One of the folders in which a study of deltapath keeps its parts."""
    return folder.name in ("units", "models", "references", "progress") and any(
        (folder.parent / name).exists() for name in ("results.h5", "results.json"))


def check_place(path: pathlib.Path) -> None:
    """A page, table or data set is put neither below the folder of a model nor among the files of a study, at any
    depth, links followed."""
    for folder in path.resolve().parents:
        if is_model(folder):
            raise Refused(f"{path}: lies in the folder of a model, {folder}, which is left as it is: give "
                          "another output")
        if is_part(folder):
            raise Refused(f"{path}: lies among the files of a study, in {folder}: give another output")


def check(path: pathlib.Path, inputs=(), after: bytes = b"", sealed=is_sealed) -> None:
    """Refuse an output that is an input, or a file that is there and may not be replaced."""
    check_inputs(path, inputs)
    if path.is_symlink():
        raise Refused(f"{path}: is a symbolic link: give the place to which it leads, or remove the "
                      "link")
    if not path.exists():
        return
    if not path.is_file():
        raise Refused(f"{path}: cannot be written: it is no regular file")
    try:
        ours = sealed(path, after)
    except OSError as e:
        raise Refused(f"{path}: cannot be read: {e.strerror}") from e
    if not ours and not in_git(path):
        raise Refused(f"{path}: is not as this tool wrote it: move it away or give another output")


def put(path: pathlib.Path, data: bytes) -> None:
    """A whole file, under a temporary name of this process first."""
    part = path.with_name(f"{path.name}.part{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as e:
        raise Refused(f"{path}: cannot be written: {e.strerror}") from e
    try:
        with open(part, "xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, path)
    except FileExistsError as e:
        raise Refused(f"{part}: is in the way: move it away") from e
    except OSError as e:
        part.unlink(missing_ok=True)
        raise Refused(f"{path}: cannot be written: {e.strerror}") from e


def write(path: pathlib.Path, data: bytes, inputs=()) -> None:
    """A file without a seal: a new one, the same as it is, or one that git has."""
    if not path.is_symlink() and path.is_file() and path.read_bytes() == data:
        return
    check(path, inputs)
    put(path, data)


def check_new(paths, inputs=()) -> None:
    """Before long work: files and folders of models that are there already are refused."""
    for path in map(pathlib.Path, paths):
        check_inputs(path, inputs)
        if path.is_symlink() or (path.exists() and not (path.is_file() and in_git(path))):
            raise Refused(f"{path}: exists already: move it away or give another folder")
