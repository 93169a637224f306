"""The sandbox on its own: cells that keep their state, one that is stopped and leaves no trace, a step back, and two futures.

Needs a container engine and the image (`toolreason sandbox build`).
"""

import asyncio

from toolreason.execution import Limits, open_sandbox

CELLS = [
    "import sympy\nx = sympy.Symbol('x')\nroots = sympy.solve(x**2 - 5*x + 6)\nroots",
    "roots.append('spoiled')\nwhile True: pass",
    "print('the roots are still', roots)",
    "import socket\nsocket.create_connection(('192.0.2.1', 80))",
    "1 / 0",
]


async def main() -> None:
    async with open_sandbox("docker", Limits(cell_timeout_s=2), pool=1) as sandbox:
        session = await sandbox.session()
        for code in CELLS:
            result = await session.run(code)
            print(">>> " + code.replace("\n", "\n... "))
            print(result.stdout or result.value or result.error)
            print(f"    [{result.outcome}, {result.duration_s * 1000:.0f} ms]\n")
        await session.run("roots = None\nopen('plan', 'w').write('forget')")
        await session.undo()
        print("after a step back:", (await session.run("roots")).value, await session.files())
        other = await session.fork()
        await other.run("roots = roots[:1]")
        print("two futures:", (await session.run("roots")).value, (await other.run("roots")).value)


if __name__ == "__main__":
    asyncio.run(main())
