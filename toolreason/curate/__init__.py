"""From collections to a training set: START's Hint-RFT (arXiv 2503.04625, section 3.2) and its second stage.

Reading order: `keep` (which problems and traces count at all), `filters`, `modify` (over `edits`, which changes whole tokens only),
`score`, `select`; `pipeline` puts them in a row, `balance` measures what a round of self-training still explores (B-STaR),
`report` and `output` write it down. Each step is a pure function over rows that counts what fell. The paper names the stages
"scoring, filtering, modifying" and no more: their contents are ours.
"""
