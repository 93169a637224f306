"""BFCL's multi-turn tasks out of a package that is laid out as `bfcl-eval` is: a small one of ours, with a checker of ours."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

import pytest

from toolreason.errors import InputError, SettingsError, SetupError
from toolreason.execution import Limits, SessionBook, open_sandbox
from toolreason.functions import bfcl, cells, judge
from toolreason.functions.bfcl_check import check
from toolreason.functions.bfclfiles import Package
from toolreason.policies.scripted import ScriptedPolicy
from toolreason.rollouts import rollout
from toolreason.strategies.functions import FunctionSettings
from toolreason.types import Judgement, Problem, StopReason, from_json, to_json
from toolreason.verify import Verifier

from .bank import DONE, Forks, forks

MORE = "There are more functions now."
API = """
from bfcl_eval.eval_checker.multi_turn_eval.func_source_code.long_context import NOISE

class TicketAPI:
    def __init__(self):
        self._description = "tickets"

    def _load_scenario(self, scenario, long_context=False):
        self.queue = scenario.get("queue", []) + (NOISE if long_context else [])

    def create_ticket(self, title, priority=1):
        self.queue.append([title, priority])
        return {"id": len(self.queue)}

    def close_ticket(self, id, reason):
        self.queue[id - 1].append(reason)
        return {"closed": id}
"""
MATH = "class MathAPI:\n    def add(self, a, b):\n        return {'result': a + b}\n"
CHECKER = """
import json

def multi_turn_checker(made, wanted, entry, category, model):
    seen = [[call for step in turn for call in step] for turn in made]
    assert entry["initial_config"]["TicketAPI"] == {"queue": [["old", 1]]} and category == "multi_turn_miss_func"
    if seen == wanted:
        return {"valid": True}
    return {"valid": False, "error_type": "ours", "error_message": json.dumps(seen)}
"""
CONFIG = """
STATELESS_CLASSES = ["MathAPI"]
CLASS_FILE_PATH_MAPPING = {
    name: "bfcl_eval.eval_checker.multi_turn_eval.func_source_code." + module
    for name, module in {"TicketAPI": "ticket_api", "MathAPI": "math_api"}.items()
}
"""
TASK = {
    "id": "multi_turn_miss_func_7",
    "question": [[{"role": "user", "content": "Open and close one."}], [], [{"role": "user", "content": "And 2 + 2?"}]],
    "initial_config": {"TicketAPI": {"queue": [["old", 1]]}},
    "involved_classes": ["TicketAPI", "MathAPI"],
    "missed_function": {"1": ["close_ticket"]},
}
TRUTH = [["create_ticket(title='it\\'s \"new\"')"], ["close_ticket(2, reason='done')"], ["add(a=2, b=2)"]]


def documentation(name: str, **types: str) -> str:
    properties = {one: {"type": kind, "description": "?"} for one, kind in types.items()}
    parameters = {"type": "dict", "properties": properties, "required": list(types)[:1]}
    return json.dumps({"name": name, "description": "?", "parameters": parameters, "response": {"type": "dict"}})


def files() -> dict[str, str]:
    place = "eval_checker/multi_turn_eval"
    tickets = [
        documentation("create_ticket", title="string", priority="integer"),
        documentation("close_ticket", reason="string", id="float"),
    ]
    named = {
        "constants/executable_backend_config.py": CONFIG,
        "constants/default_prompts.py": f"STEPS = 20\nDEFAULT_USER_PROMPT_FOR_ADDITIONAL_FUNCTION_FC = (\n    {MORE!r}\n)\n",
        f"{place}/multi_turn_checker.py": CHECKER,
        f"{place}/multi_turn_utils.py": "raise SystemExit('never imported on the host')",
        f"{place}/func_source_code/long_context.py": "NOISE = [['noise', 0]]",
        f"{place}/func_source_code/ticket_api.py": API,
        f"{place}/func_source_code/math_api.py": MATH,
        "data/multi_turn_func_doc/ticket_api.json": "\n".join(tickets),
        "data/multi_turn_func_doc/math_api.json": documentation("add", a="float", b="float"),
    }
    for kind in bfcl.KINDS:
        row = TASK | {"id": f"multi_turn_{kind}_7"}
        if kind != "miss_func":
            row = {**row, "missed_function": {}, "question": [said or [{"content": "Close it."}] for said in TASK["question"]]}  # type: ignore[attr-defined]
        named[f"data/BFCL_v4_multi_turn_{kind}.json"] = json.dumps(row)
        named[f"data/possible_answer/BFCL_v4_multi_turn_{kind}.json"] = json.dumps({"id": row["id"], "ground_truth": TRUTH})
    packages = ("", "constants/", "eval_checker/", f"{place}/", f"{place}/func_source_code/")
    return {f"bfcl_eval/{name}": text for name, text in {**{f"{one}__init__.py": "" for one in packages}, **named}.items()}


@pytest.fixture
def wheel(tmp_path: Path) -> str:
    path = tmp_path / "bfcl_eval-0.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for name, text in files().items():
            archive.writestr(name, text)
    return str(path)


def replies(problem: Problem) -> list[str]:
    """The expected calls, turn by turn."""
    assert problem.reference.task is not None
    said: list[str] = []
    for turn in problem.reference.task.turns:
        said += [f"<reasoning>so</reasoning><tool>{cells.expected(turn.calls)}</tool>"] if turn.calls else []
        said.append(DONE)
    return said


def test_a_wheel_a_folder_and_an_installed_package_give_the_same_tasks(wheel: str, tmp_path: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path / "site")
    places = [wheel, str(tmp_path), str(tmp_path / "site"), str(tmp_path / "site" / "bfcl_eval")]
    tasks = [bfcl.load(place) for place in places]
    assert [problem.id for problem in tasks[0]] == [f"multi_turn_{kind}_7" for kind in bfcl.KINDS]
    texts = [[problem.reference.task.turns for problem in one if problem.reference.task] for one in tasks]
    assert all(one == texts[0] for one in texts)
    assert bfcl.load(wheel, ["base"], ids=["multi_turn_base_7"]) == tasks[0][:1]


def test_a_task_has_its_turns_its_calls_and_the_functions_as_they_become_known(wheel: str) -> None:
    (problem,) = bfcl.load(wheel, ["miss_func"])
    task = problem.reference.task
    assert task is not None
    assert (problem.question, problem.domain) == ("Open and close one.", "bfcl_miss_func")
    assert [turn.message for turn in task.turns] == ["Open and close one.", MORE, "And 2 + 2?"]
    assert cells.documented(task) == {"create_ticket": 0, "add": 0, "close_ticket": 1}
    shown = json.loads(task.turns[1].functions[0])
    assert shown["parameters"]["type"] == "object"  # as JSON schema says it
    assert shown["parameters"]["properties"]["id"]["type"] == "number"
    assert "response" not in shown
    closing = task.turns[1].calls[0]
    assert (closing.name, json.loads(closing.arguments)) == ("close_ticket", {"id": 2, "reason": "done"})  # by the source's order
    assert from_json(Problem, to_json(problem)) == problem
    assert "class TicketAPI" not in to_json(problem)


@pytest.fixture
async def sandbox():  # type: ignore[no-untyped-def]
    async with open_sandbox("local", Limits(cell_timeout_s=20)) as opened:
        yield await forks(opened)


async def test_the_expected_calls_have_full_marks_by_us_and_by_the_packages_checker(wheel: str, sandbox: Forks) -> None:
    problem, longer = bfcl.load(wheel, ["miss_func", "long_context"])

    async def done(one: Problem, said: list[str]) -> tuple[judge.Verdict, object]:
        async with SessionBook(sandbox) as book, Verifier(sandbox=sandbox) as verifier:
            finished = await rollout(one, strategy="functions", policy=ScriptedPolicy(said), sessions=book)
            return await verifier(one, finished), finished

    verdict, finished = await done(problem, replies(problem))
    assert (verdict.judgement, verdict.reason) == (Judgement.CORRECT, "")
    assert set(verdict.parts.values()) == {1.0}
    assert finished.stop is StopReason.ANSWERED  # type: ignore[attr-defined]

    refused = '<tool>[{"name": "exit", "arguments": {}}]</tool>'  # is not handed to the checker, which evaluates source
    assert (await done(problem, [refused, *replies(problem)]))[0].judgement is Judgement.CORRECT

    verdict, _ = await done(problem, [DONE, *replies(problem)[2:]])
    assert (verdict.judgement, verdict.parts["function"]) == (Judgement.WRONG, pytest.approx(2 / 3))
    assert verdict.reason.startswith("ours: [[]")

    made, _ = await judge.play(sandbox, longer.reference.task, [[], [], []])  # type: ignore[arg-type]
    usual, _ = await judge.play(sandbox, problem.reference.task, [[], [], []])  # type: ignore[arg-type]
    assert made.before != usual.before  # the longer context is there
    verdict, _ = await done(longer, replies(longer))
    assert verdict.judgement is Judgement.UNSCORED  # our checker takes one kind only: a checker that fails is no verdict
    assert "checker failed" in verdict.reason


async def test_a_rollout_that_did_not_end_is_not_valid(wheel: str, sandbox: Forks) -> None:
    (problem,) = bfcl.load(wheel, ["miss_func"])
    policy = ScriptedPolicy(replies(problem)[:2])
    async with SessionBook(sandbox) as book:
        done = await rollout(problem, strategy="functions", policy=policy, sessions=book, settings=FunctionSettings(max_turns=2))
    assert await check(problem, done, sandbox) == (False, "force-terminated: turn_limit")
    with pytest.raises(InputError, match="none of BFCL"):
        await check(Problem("p", "?"), done, sandbox)


def test_what_is_no_package_is_told_with_the_command_that_gets_one(wheel: str, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "other.whl").write_bytes(b"not an archive")
    for place in (tmp_path / "empty", tmp_path / "other.whl", tmp_path / "nothing"):
        with pytest.raises(SetupError, match=r"pip download --no-deps .* bfcl-eval=="):
            bfcl.load(str(place))
    with zipfile.ZipFile(tmp_path / "else.whl", "w") as archive:
        archive.writestr("else/__init__.py", "")
    with pytest.raises(InputError, match="no bfcl-eval package"):
        bfcl.load(str(tmp_path / "else.whl"))
    with pytest.raises(SettingsError, match="miss_param"):
        bfcl.load(wheel, ["composite"])
    with pytest.raises(SettingsError, match="multi_turn_base_8"):
        bfcl.load(wheel, ["base"], ids=["multi_turn_base_8"])


@pytest.mark.parametrize(
    "wrong", ["__import__('os').getcwd()", "create_ticket(title=open('x'))", "create_ticket", "1 +", "sing(1)", "a.b(c=1)"]
)
def test_an_expected_call_that_is_not_one_is_refused_and_never_run(wheel: str, tmp_path: Path, wrong: str) -> None:
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path / "site")
    truth = {"id": "multi_turn_base_7", "ground_truth": [[wrong], [], []]}
    (tmp_path / "site/bfcl_eval/data/possible_answer/BFCL_v4_multi_turn_base.json").write_text(json.dumps(truth))
    with pytest.raises(InputError, match="expected call"):
        bfcl.load(str(tmp_path / "site"), ["base"])


def test_the_users_words_on_more_functions_are_the_packages(wheel: str) -> None:
    assert Package.open(wheel).more_functions() == MORE
