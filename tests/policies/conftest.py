"""Read before torch is imported by any of these test modules."""

import os

os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # threads that spin at barriers starve one another on a busy machine
