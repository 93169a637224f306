"""What goes into a curation: runs with their hashes, the problems they are of, and the rows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from toolreason import problems, runs
from toolreason.curate.report import SourceRun
from toolreason.curate.steps import Row
from toolreason.errors import InputError, ProblemError
from toolreason.models import sha256
from toolreason.types import Problem


class Known(NamedTuple):
    """The problems by id (none where they cannot be had), where they come from, and what is to be said about that."""

    problems: dict[str, Problem]
    source: str
    notes: list[str]


def sources(named: Sequence[tuple[str, Path]]) -> list[SourceRun]:
    """The runs of these roles and directories, hashed. Raises InputError for one named twice, or problems that differ."""
    found, seen = list[SourceRun](), set[Path]()
    for role, path in named:
        if path.resolve() in seen:
            raise InputError(f"{path} is named twice: name each run once")
        seen.add(path.resolve())
        manifest = runs.manifest(path)
        names = [name for name in (runs.MANIFEST, runs.TRAJECTORIES) if (path / name).is_file()]
        found.append(SourceRun(str(path), role, manifest, {name: sha256(path / name) for name in names}))
    other = next((run for run in found if run.manifest.problems_hash != found[0].manifest.problems_hash), None)
    if other is not None:
        raise InputError(
            f"{found[0].path} and {other.path} are of different problems ({found[0].manifest.problems} and "
            f"{other.manifest.problems}): an id may mean another question there. Collect both from the same file"
        )
    return found


def known(given: str | None, found: Sequence[SourceRun]) -> Known:
    """The problems of a source that was given, else of the runs' own, if that is a file that is still here and the same.

    Raises ProblemError where those that were given are others.
    """
    wanted = found[0].manifest
    source = given or wanted.problems
    instead = "questions are read from the prompts and answers from the verdicts"
    if given is None and not Path(source).is_file():
        return Known({}, source, [f"{source} is not here, so {instead}; give it with --problems"])
    loaded = problems.load(source).problems
    if runs.problems_hash(loaded) == wanted.problems_hash:
        return Known({problem.id: problem for problem in loaded}, source, [])
    if given is not None:
        raise ProblemError(f"{source} does not hold the problems of {found[0].path}: give the file that it was collected from")
    return Known({}, source, [f"{source} has changed since the runs, so {instead}"])


def policy(found: Sequence[SourceRun], tokenizer: str | None) -> str:
    """The policy of the runs that rows come from, as their trajectories name it: a server's URL tells no model, they do.

    Raises InputError where there are several and no tokenizer was named for all of them.
    """
    sampled = [run for run in found if run.role != "plain"]
    names = sorted({next((one.policy for one in runs.read(run.path)), run.manifest.policy) for run in sampled})
    if len(names) > 1 and tokenizer is None:
        raise InputError(f"the runs are of several policies ({', '.join(names)}): name their one tokenizer with --tokenizer")
    return names[0]


def rows(found: Sequence[SourceRun], of: dict[str, Problem]) -> Iterator[Row]:
    """All trajectories of these runs, one in memory at a time."""
    for source in found:
        for one in runs.read(source.path):
            yield Row(one, source.path, of.get(one.problem_id))
