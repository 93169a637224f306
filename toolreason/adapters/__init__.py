"""Ways by which others use the sandbox: an MCP server, a LangChain tool, deepagents' backend. Each needs an extra of its own."""
