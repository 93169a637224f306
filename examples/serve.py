"""Serve: the endpoint in a process of its own, asked over HTTP as any OpenAI-style client would.

python examples/serve.py [POLICY]
"""

import json
import re
import subprocess
import sys

import httpx

POLICY = sys.argv[1] if len(sys.argv) > 1 else "transformers:qwen2.5-coder-0.5b-instruct"
ASK = {"model": "hint_infer", "stream": True, "messages": [{"role": "user", "content": "What is 2**64 mod 97?"}]}

command = [sys.executable, "-m", "toolreason", "serve", "--policy", POLICY, "--port", "0"]
with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as server:
    assert server.stderr is not None
    url = next(found.group() for line in server.stderr if (found := re.search(r"http://[\d.]+:\d+/v1", line)))
    with httpx.stream("POST", f"{url}/chat/completions", json=ASK, timeout=600) as answer:
        for line in answer.iter_lines():
            if not line.startswith("data: {"):
                continue
            for choice in json.loads(line[6:])["choices"]:
                delta = choice["delta"]
                print(delta.get("content", ""), end="")
                if own := delta.get("toolreason"):
                    print(f"\n[{own['type']}] {own['text'].strip()}")
    print()
    server.terminate()
