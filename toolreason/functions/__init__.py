"""Function calling (ARTIST, arXiv 2505.01441, second half): tools are objects with a state, in the agent's sandbox session.

`environment_cell` and `bfcl_cell` run inside the sandbox, as text that `cells` and `bfcl` send there. `format` says how calls are
written, `turns` how the user goes on, `judge` what came of it. Nothing of an environment is ever run on the host.
"""
