"""What can go wrong, drawn once.

    ToolreasonError
    ├── InputError             what the user gave us is wrong; the message names the fix
    │   ├── ProblemError       a problem row cannot be read (line and reason)
    │   ├── SettingsError      a setting is unknown or out of range
    │   └── CapabilityError    this policy cannot do what the strategy needs
    ├── SetupError             something is missing on this machine; the message names the command
    └── InfrastructureError    a part failed, through no fault of the model: retry, else abort the rollout
        ├── PolicyError        the engine that samples
        ├── SandboxError       the engine that runs cells, or the runner inside it
        │   └── SessionLost    this session is gone; a new one can be built by replay
        └── VerifierError      a grading worker that died (its verdict becomes `unscored`)

Code of the model that fails is none of these: it is a `CellResult`, an observation for the model.
A verifier that cannot decide is none of these: it is the verdict `unscored`.
"""


class ToolreasonError(Exception):
    """The root: catch this to catch everything this package raises on purpose."""


class InputError(ToolreasonError):
    """What the user gave is wrong; the message says what and how to mend it."""


class ProblemError(InputError):
    """A row of a problem file cannot be read; the message names line and reason."""


class SettingsError(InputError):
    """A setting is unknown or out of range."""


class CapabilityError(InputError):
    """The policy cannot do what the strategy or the export needs."""


class SetupError(ToolreasonError):
    """Something is missing on this machine; the message names the command that fixes it."""


class InfrastructureError(ToolreasonError):
    """A part of ours failed. The trajectory is marked aborted: never wrong, never a low reward."""


class PolicyError(InfrastructureError):
    """The engine that samples tokens failed or answered nonsense."""


class SandboxError(InfrastructureError):
    """The container engine or the runner inside the container failed."""


class SessionLost(SandboxError):
    """The session is gone (container killed, stream closed); replay can build an equal one."""


class VerifierError(InfrastructureError):
    """A grading worker died or could not start."""
