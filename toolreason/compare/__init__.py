"""Conditions beside each other: the same problems, seeds and token budget, a run each, then tables with paired tests and a chart.

conditions  what is compared, as data           plan    what is kept of a comparison, beside its runs
rows        a rollout in the few numbers of it  report  from rows to rates, intervals and tests
rounds      the same for test-time scaling      tables  the report to read, in Markdown and on a terminal
"""
