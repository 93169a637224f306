"""Trajectories become updates. TRL trains; ours are the rows, the rollouts, the masks, the rewards and the proofs."""
