"""Where the figures of a key finding are stored: a pattern a kind of sentence, and what its numbers must be.

A sentence that no pattern fits is a failure: whoever adds a rule to the findings says here what its figures stand on.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator
from statistics import fmean

from tests.reports.tracing.figures import disagreements, figures
from tests.reports.tracing.rules import STATISTIC, fitted
from tests.reports.tracing.stored import Job, Stored

Said = re.Match[str]
Rule = Callable[[Stored, Said, str], Iterator[tuple[str, list[float]]]]
"""(database, what the pattern found, the sentence) -> pieces of the sentence with the figures that must stand in them."""

_LEVEL = r"(?:`(?P<axis>\w+)` (?P<level>\w+)|`(?P<word>\w+)`)"
_PAIR = re.compile(r"([\d.,]+)(?: (?:s|GiB))? against ([\d.,]+)(?: (?:s|GiB))? at `([^`]+)`")


def ratio(stored: Stored, said: Said, sentence: str) -> Iterator[tuple[str, list[float]]]:
    """One level against another: every pair that is shown, and the mean over all pairs."""
    figure = _figure(said["figure"])
    of, against = said["level"] or said["word"], said["of"]
    axis = said["axis"] or _axis_of(stored, of)
    pairs = [(a, b) for a in stored.at(axis, of) for b in stored.at(axis, against) if _differ_in(a, b, axis)]
    seeds: dict[int, list[float]] = {}
    for a, b in pairs:
        seeds.setdefault(a.parameters["seed"], []).append(math.log(figure(a) / figure(b)))
    means = sorted(math.exp(fmean(logs)) for logs in seeds.values())
    yield said["times"], [math.exp(fmean(fmean(logs) for logs in seeds.values()))]
    shown = _PAIR.findall(sentence)
    assert shown
    for first, second, setting in shown:
        (pair,) = [(a, b) for a, b in pairs if _is_at(a, setting)]
        yield f"{first} {second}", [figure(pair[0]), figure(pair[1])]
    if more := re.search(r"(\d+) more pairs", sentence):
        yield more[1], [len(pairs) - len(shown)]
    if interval := re.search(r"(?:95%|bootstrap) interval ([\d.]+)× to ([\d.]+)× over (\d+) replicates", sentence):
        yield " ".join(interval.groups()), [means[0], means[-1], len(seeds)]  # of two replicates, they are its ends
    if whole := re.search(r"Over all levels, `\w+` (\w+) takes ([\d.]+)× that of (\w+)", sentence):
        a, b = stored.at(axis, whole[1]), stored.at(axis, whole[3])
        yield whole[2], [math.exp(fmean(math.log(figure(x)) for x in a) - fmean(math.log(figure(x)) for x in b))]


def power(stored: Stored, said: Said, sentence: str) -> Iterator[tuple[str, list[float]]]:
    scope, phase = said["scope"], said["phase"]
    yield said["factor"], fitted(stored, scope, phase, lambda job: job.parameters["factor"])
    yield said["dim"], fitted(stored, scope, phase, _dim)
    levels = sorted({job.parameters["factor"] for job in stored.jobs.values()})
    over = re.search(r"over (\d+) factors, (\d+) to (\d+)", sentence)
    assert over
    yield " ".join(over.groups()), [len(levels), levels[-1], levels[0]]


def larger_pool(stored: Stored, said: Said, sentence: str) -> Iterator[tuple[str, list[float]]]:
    job = stored.jobs[said["job"]]
    yield said["card"], [job.evidence["card_bytes"] / 1024**3]
    yield (
        said["others"],
        [sum(one.last["pool"] == said["pool"] and one.last["verdict"] == "completed" for one in stored.jobs.values())],
    )
    assert _is_at(job, re.findall(r"at `([^`]+)`", sentence)[0])


def modules(stored: Stored, said: Said, _sentence: str) -> Iterator[tuple[str, list[float]]]:
    job = stored.jobs[said["job"]]
    sizes = {one["module_type"]: one for one in job.evidence["npz"][-1]["dims"]}
    cubes = {name: one["modules"] * (one["k_in"] * one["k_out"]) ** 3 for name, one in sizes.items()}
    largest = max(cubes, key=lambda name: cubes[name])
    yield said["count"], [sizes[largest]["modules"], sum(one["modules"] for one in sizes.values())]
    yield said["share"], [_dim(job), 100 * cubes[largest] / sum(cubes.values())]
    solve = job.timing("hessian_solve")
    yield said["took"], [solve, 100 * solve / job.timing("step")]


def gradients(stored: Stored, said: Said, _sentence: str) -> Iterator[tuple[str, list[float]]]:
    files = (file for job in stored.jobs.values() for file in job.evidence["npz"] if file["similarity"])
    rows = {(r["matrix"], r["scope"], r["pair"]): r for r in next(files)["similarity"]["rows"]}
    for matrix in ("HINV_DOT", "RAW_DOT"):
        row = rows[matrix, "PER_PROMPT", "acc-acc"]
        yield said[matrix], [row["mean"], 100 * row["mean"] / row["self_dot"], row["self_dot"]]
    yield said["cosine"], [rows["HINV_DOT", "PER_PROMPT", "acc-acc"]["cosine"]]


PATTERNS: dict[str, Rule] = {
    rf"\*\*{_LEVEL} (?:takes|has|holds) (?P<times>[\d.]+)× the `?(?P<figure>[\w ]+?)`? of `?(?P<of>\w+)`?\*\*": ratio,
    r"\*\*`(?P<phase>\w+)` goes as the factor to the power (?P<factor>[-\d.]+ ± [\d.]+)\*\* \(`scope=(?P<scope>\w+)`\)"
    r".* as D to the power (?P<dim>[-\d.]+ ± [\d.]+)": power,
    r"\*\*`(?P<job>[\w-]+)` needed the larger pool\*\*.*\((?P<card>[\d.]+) GiB a card\).* (?P<others>\d+) other points "
    r"completed on `(?P<pool>\w+)`": larger_pool,
    r"\*\*The largest modules are most of the solve's arithmetic\*\*: (?P<count>\d+ of \d+) modules .* have "
    r"(?P<share>D = [\d,]+ and \d+%) of.*"
    r"`hessian_solve` takes (?P<took>[\d.,]+ s, [\d.]+%) of the step at `(?P<job>[\w-]+)`": modules,
    r"\*\*Response gradients\*\*: the mean HINV_DOT of acc-acc pairs is (?P<HINV_DOT>.*); their RAW_DOT is "
    r"(?P<RAW_DOT>.*?); their mean cosine under it is (?P<cosine>[-\d.]+)\. From": gradients,
}


def sentence_problems(stored: Stored, sentence: str) -> list[str]:
    """What a finding says otherwise than the database."""
    for pattern, rule in PATTERNS.items():
        if said := re.search(pattern, sentence):
            pieces = rule(stored, said, sentence)
            return [f"{piece}: {bad}" for piece, values in pieces for bad in disagreements(figures(piece), values)]
    return [f"nobody knows what its figures stand on: {sentence}"]


def _figure(name: str) -> Callable[[Job], float]:
    return STATISTIC.get(name) or STATISTIC[f"{name} (s)"]


def _axis_of(stored: Stored, level: str) -> str:
    job = next(iter(stored.jobs.values()))
    return next(axis for axis in job.parameters if stored.at(axis, level))


def _differ_in(a: Job, b: Job, axis: str) -> bool:
    return all(a.parameters[name] == b.parameters[name] for name in a.parameters if name != axis)


def _is_at(job: Job, setting: str) -> bool:
    """`factor=64, seed=0`"""
    named = dict(part.split("=") for part in setting.split(", "))
    return all(str(job.parameters[axis]) == value for axis, value in named.items())


def _dim(job: Job) -> float:
    return max(one["k_in"] * one["k_out"] for file in job.evidence["npz"] for one in file["dims"])
