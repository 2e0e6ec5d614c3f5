"""Studies as `deltapath run` leaves them, and the intervals that the claims are judged by."""
import functools
import json
import math
import pathlib

import numpy as np

import results

NEEDED = ("edit", "data", "loss", "change", "margin", "accuracy_edit", "accuracy_post")

Unreadable = results.Unreadable


class Unit(results.Unit):
    """One edit on one data set."""

    @property
    def name(self):
        """Name in the job file: the id up to the first swept parameter."""
        for name in sorted(self.results.names, key=len, reverse=True):
            if self.edit == name or self.edit.startswith(name + "-"):
                return name
        return self.edit

    @property
    def drawn(self):
        """What its seed draws: "mask", or "draw" of magnitudes, or "" where no seed matters."""
        method = self.get("edit") if self.record["method"] == "allocate" else self.record["method"]
        if method == "bitdelta":
            return "draw" if self.get("sample") in ("normal", "uniform") else ""
        return "mask" if method in ("dare", "drop", "della") else ""

    def correlations(self):
        """(tensor, correlation of mask and product, entries) where it is known."""
        names, counts = self.results.array("tensors/names"), self.results.array("tensors/numel")
        return [(results.text(n), float(r), int(k)) for n, r, k in zip(names, self.tensor_stat("correlation"), counts)
                if math.isfinite(r) and k > 1]

    def first_order(self):
        """The approximation term at the post-trained weights: <gradient, E>, all tensors together."""
        return float(np.sum(self.array("terms")[:, 0]))

    def tensor_column(self, name):
        """A column of the numbers on each tensor that the edit changed."""
        return self.tensor_stat(name)[self.tensor_stat("delta_norm") > 0.0]


class Study(results.Results):
    """All units of a folder; `figure` and `pair` are its name, as in fig1-llama or fig4-qwen2-7b."""

    def __init__(self, folder):
        super().__init__(folder, Unit)
        self.name = pathlib.Path(folder).name
        self.figure, self.pair = name_parts(self.name)
        self.names = edit_names(self.job)
        self.job_name = results.text(self.file.attrs.get("name", ""))
        with results.reading(self.path):
            for unit in self.units:
                for key in NEEDED:
                    unit.record[key]
        self.data = list(dict.fromkeys(unit.data for unit in self.units))
        for unit in self.units:
            self.check_plain(unit)

    def check_plain(self, unit):
        """Samples that count alike: the intervals of this module are of plain means."""
        count = len(unit.array("loss_post")) if unit.has("loss_post") else 0
        effective = unit.record.get("effective", math.nan)
        if unit.record.get("clusters", count) != count or effective < count - 1e-6:
            raise Unreadable(f"{self.path}: {unit.data}: weights, clusters or repeats leave {effective:.4g} of {count} samples "
                             "in effect, which claims are not judged by: take the verdicts of the study itself, or run "
                             "it on samples that count alike")

    @property
    def proof(self):
        """Predicted and true changes compared, for each data set; of a study with predictions."""
        return self.listed("results.json", json.loads).get("proof") or []

    @property
    def group_proof(self):
        """Terms of groups of tensors compared with what the groups change, for each data set; of a study with `proof`."""
        return self.listed("results.json", json.loads).get("group_proof") or []

    def find(self, data, name, **parameters):
        """Units of an entry of the job whose parameters have these values."""
        return [u for u in self.units if u.data == data and u.name == name
                and all(close(u.get(key), value) for key, value in parameters.items())]

    def extrapolations(self, data):
        """Units of the swept alphas, rising."""
        units = [u for u in self.units if u.data == data and u.name == "expo"]
        return sorted((u for u in units if isinstance(u.get("alpha"), (int, float))),
                      key=lambda u: u.get("alpha"))

    def values(self, name, parameter):
        """The values that an entry sweeps, rising."""
        found = {u.get(parameter) for u in self.units if u.name == name}
        return sorted(v for v in found if isinstance(v, (int, float)))


def name_parts(name):
    """Figure and pair of a folder's name: no figure's name holds a hyphen, that of a pair may."""
    figure, _, pair = name.partition("-")
    return figure, pair


def close(a, b):
    if isinstance(a, float) and isinstance(b, (int, float)):
        return abs(a - b) < 1e-9
    return a == b


def edit_names(job):
    """Names of the entries of `edits` in the canonical text of a job."""
    names, inside = [], False
    for line in job.splitlines():
        inside = line.startswith("edits") or (inside and line[:1] in " -")
        if inside and "name:" in line:
            names.append(line.split("name:", 1)[1].split(",")[0].strip(" }\"'"))
    return names


def load(folder, figures):
    """(studies, lines on folders that were left out, lines on studies that cannot be read)."""
    studies, skipped, broken = [], [], []
    for path in sorted(p for p in pathlib.Path(folder).glob("*") if p.is_dir()):
        figure, pair = name_parts(path.name)
        named = figure in figures and pair
        if not (path / results.NAME).is_file():
            if named:
                skipped.append(f"{path}: left out: has no {results.NAME}: the study is unfinished, run it "
                               "again with --resume")
        elif not named:
            skipped.append(f"{path}: left out: its name is not <figure>-<pair> with a figure of "
                           + ", ".join(figures))
        else:
            try:
                study = Study(path)
            except Unreadable as error:
                broken.append(str(error))
                continue
            why = misplaced(study, studies, figures)
            if why:
                skipped.append(f"{path}: left out: {why}")
            else:
                studies.append(study)
    return studies, skipped, broken


def misplaced(study, earlier, figures):
    """Why a study is not what its folder's name says, or none."""
    other, _ = name_parts(study.job_name)
    if other in figures and other != study.figure:
        return f"its job is {study.job_name}, not {study.figure}: give the folder the name of its figure"
    twin = next((s for s in earlier if s.path.read_bytes() == study.path.read_bytes()), None)
    return f"it is a copy of {twin.path.parent}" if twin else None


def beta_fraction(a, b, x):
    """Continued fraction of the incomplete beta function (DLMF 8.17.22, modified Lentz)."""
    tiny = 1e-300
    c, d = 1.0, 1.0 - (a + b) * x / (a + 1)
    d = 1.0 / (d if abs(d) > tiny else tiny)
    f = d
    for m in range(1, 10000):
        for top in (m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m)),
                    -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1))):
            d = 1.0 + top * d
            d = 1.0 / (d if abs(d) > tiny else tiny)
            c = 1.0 + top / c
            c = c if abs(c) > tiny else tiny
            f *= c * d
        if abs(c * d - 1.0) < 1e-15:
            break
    return f


def t_upper(t, df):
    """P(T > t) for t >= 0."""
    x, y = df / (df + t * t), t * t / (df + t * t)
    a, b = 0.5 * df, 0.5
    if y == 0.0:
        return 0.5
    front = math.exp(a * math.log(x) + b * math.log(y) + math.lgamma(a + b) - math.lgamma(a)
                     - math.lgamma(b))
    if x < (a + 1) / (a + b + 2):
        return 0.5 * front * beta_fraction(a, b, x) / a
    return 0.5 * (1.0 - front * beta_fraction(b, a, y) / b)


@functools.lru_cache(maxsize=None)
def t_quantile(p, df):
    low, high = 0.0, 1e4
    for _ in range(200):
        middle = 0.5 * (low + high)
        low, high = (middle, high) if t_upper(middle, df) > 1.0 - p else (low, middle)
    return 0.5 * (low + high)


def normal_quantile(p):
    low, high = 0.0, 40.0
    for _ in range(200):
        middle = 0.5 * (low + high)
        low, high = (middle, high) if 0.5 * math.erfc(middle / math.sqrt(2)) > 1.0 - p else (low, middle)
    return 0.5 * (low + high)


def skewness(x):
    """Of values; none without spread."""
    off = x - x.mean()
    square = float(np.mean(off ** 2))
    return float(np.mean(off ** 3)) / square ** 1.5 if square > 0 else math.nan


def is_few(x):
    """Whether the samples, or the means over the seeds of (seeds, samples), are fewer than an interval of values so skewed
    is known to need, below change_enough of the program, or there are two seeds, as crossed_few says."""
    x = np.atleast_2d(np.asarray(x, dtype=np.float64))
    means = x.mean(axis=0)
    return len(x) == 2 or bool(means.size < 28.0 + 25.0 * skewness(means) ** 2)


def corrected(skew, n, y):
    """The t statistic of n values with a skewness where Hall's transform of it is y: dpt_hall_invert of the program
    (doc/science.md, Intervals of skewed samples)."""
    if math.isnan(skew) or n < 3:
        return y
    u, share = skew / math.sqrt(n), skew ** 2 / (skew ** 2 + 1.5)
    unmet = 20.0 if n < 9 else 5.0 if n < 12 else 1.5
    off = y - u * share / 6.0
    v = u * (1.0 + unmet * abs(u)) if off * u < 0.0 else u * share
    root = float(np.cbrt(1.0 + max(v * off, -1.125)))
    return 3.0 * off / (root * root + root + 1.0)


def crossed_parts(x):
    """(standard error, skewness, values) of seeds and of samples, where each seed has met each sample."""
    seeds, samples = x.shape
    rows, columns, mean = x.mean(axis=1), x.mean(axis=0), x.mean()
    seed = samples * np.sum((rows - mean) ** 2) / (seeds - 1)
    sample = seeds * np.sum((columns - mean) ** 2) / (samples - 1)
    rest = np.sum((x - rows[:, None] - columns[None, :] + mean) ** 2) / ((seeds - 1) * (samples - 1))
    return [(math.sqrt(seed / x.size), skewness(rows), seeds),
            (math.sqrt(max(sample - rest, 0.0) / x.size), skewness(columns), samples)]


def interval(x, error=0.05, skewed=True):
    """Mean of samples, or of (seeds, samples), and its interval at confidence 1 - error: that of the program's `interval: auto`
    and of its crossed_low and crossed_high where samples count alike (Study asks), for differences of edits too, which the
    program does not write. Not `skewed`: Student's quantiles."""
    x = np.atleast_2d(np.asarray(x, dtype=np.float64))
    seeds, samples = x.shape
    mean = float(np.mean(x))
    if samples < 2 or not math.isfinite(mean):
        return mean, math.nan, math.nan
    parts = crossed_parts(x) if seeds > 1 else [
        (float(np.std(x, ddof=1)) / math.sqrt(samples), skewness(x[0]), samples)]
    quantiles = [t_quantile(1.0 - 0.5 * error, n - 1) for _, _, n in parts]
    if seeds == 2:
        quantiles[0] = 1.0 / error - 1.0  # dpt_crossed_interval says why

    def reach(sign):
        ends = [sign * corrected(skew if skewed else math.nan, n, sign * t) * se
                for (se, skew, n), t in zip(parts, quantiles)]
        if seeds < 3:
            return max(ends)
        return max(math.sqrt(sum(end * end for end in ends) - 1.6 / seeds * ends[0] * ends[1]), *ends)

    return mean, mean - reach(1.0), mean + reach(-1.0)


def changes(units):
    """Changes of the loss (units, samples); units are the seeds of an edit."""
    return np.array([u.array("loss_edit") - u.array("loss_post") for u in units])


def change(units):
    """Change of the loss of each sample, averaged over units."""
    return np.mean(changes(units), axis=0)
