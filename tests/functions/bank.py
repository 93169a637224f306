"""A small environment, a task in it, and a policy that plays what it is told: what the tests of function calling share."""

from __future__ import annotations

import json
from collections.abc import Sequence

from toolreason.execution.base import Sandbox, Session
from toolreason.functions.cells import of
from toolreason.functions.turns import schema
from toolreason.types import Environment, FunctionTask, Problem, Reference, ReferenceKind, UserTurn

CODE = '''
import time

class Bank:
    """Accounts by owner. The book of what was done is no part of the state that counts."""

    def __init__(self, accounts, fee=0):
        self.accounts = dict(accounts)
        self.fee = fee
        self.log = []
        self._reads = 0

    def balance(self, owner):
        self._reads += 1
        print("the bank talks to itself")
        return {"balance": self.accounts[owner]}

    def transfer(self, source, target, amount, note=""):
        if self.accounts[source] < amount + self.fee:
            return {"error": "not enough"}
        self.accounts[source] -= amount + self.fee
        self.accounts[target] += amount
        self.log.append((source, target, amount))
        return {"done": True, "note": note}

    def close(self, owner):
        raise SystemExit("the bank is closed")

    def wait(self):
        self.fee = 99
        time.sleep(60)

    def vault(self):
        return "gold"

    def _audit(self):
        return "secret"
'''


def documented(name: str, *arguments: str) -> str:
    return schema(name, f"{name} of the bank", {"type": "object", "properties": {one: {} for one in arguments}})


FIRST = (
    documented("balance", "owner"),
    documented("transfer", "source", "target", "amount", "note"),
    documented("close", "owner"),
    documented("wait"),
    documented("_audit"),
)
ENVIRONMENT = Environment(("Bank",), json.dumps({"Bank": {"accounts": {"ann": 10, "bob": 1}}}), CODE)
TASK = FunctionTask(
    ENVIRONMENT,
    (
        UserTurn("Give bob 3 of ann's.", (of("transfer", source="ann", target="bob", amount=3),), FIRST),
        UserTurn("Take it out of the vault!"),
        UserTurn("Now you can.", (of("vault"), of("balance", owner="bob")), (documented("vault"),)),
    ),
)
PROBLEM = Problem("bank", TASK.turns[0].message, Reference(ReferenceKind.CALLS, task=TASK), "bank")


def call(*calls: tuple[str, dict[str, object]]) -> str:
    """What a model says that makes these calls."""
    wanted = [{"name": name, "arguments": arguments} for name, arguments in calls]
    return f"<reasoning>I do it.</reasoning>\n<tool>{json.dumps(wanted)}</tool>"


DONE = "<reasoning>There is nothing more to do.</reasoning>\nDone."
RIGHT = (
    call(("transfer", {"source": "ann", "target": "bob", "amount": 3})),
    DONE,
    DONE,
    call(("vault", {}), ("balance", {"owner": "bob"})),
    DONE,
)


class Forks:
    """A sandbox whose sessions are forks of one: a process is started once."""

    def __init__(self, base: Session) -> None:
        self.base = base

    async def session(self) -> Session:
        return await self.base.fork()

    async def aclose(self) -> None:
        """The base belongs to the caller."""


async def forks(sandbox: Sandbox) -> Forks:
    return Forks(await sandbox.session())


def texts(turns: Sequence[str]) -> list[str]:
    """The words in the tags of these messages."""
    return [one.partition("<tool>")[2].partition("</tool>")[0] for one in turns if "<tool>" in one]
