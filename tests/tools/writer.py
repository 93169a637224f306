"""A process that changes a library: python -m tests.tools.writer SPEC NUMBER COUNT. It prints a line for each thing done."""

from __future__ import annotations

import asyncio
import sys

from tests.tools.packages import admitted
from toolreason.tools.library import open_library
from toolreason.tools.package import Use


async def main(spec: str, number: int, count: int) -> None:
    async with open_library(spec) as library:
        print("open", flush=True)
        for round in range(count):
            shared = await library.add(admitted("shared", body=f"return {number * 1_000_000 + round}"))
            print("version", shared.version, flush=True)
            own = await library.add(admitted(f"own_{number}", body=f"return {round}"))
            print("own", own.version, flush=True)
            await library.record(Use(shared.identity, f"p{number}", True))
            print("use", flush=True)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3])))
