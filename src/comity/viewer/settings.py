"""How the viewer is served, and what it plays with."""

from dataclasses import dataclass, field

from comity.config import AccessConfig, JudgeConfig, ModelConfig, NegotiationConfig
from comity.errors import ConfigError


@dataclass(frozen=True)
class ViewConfig:
    """Look at runs in a browser, play negotiations, rate them."""

    host: str = "127.0.0.1"
    """The address to listen at; any but a loopback address asks for an access token."""
    port: int = 8765
    """0 takes a free one."""
    token: str = ""
    """The access token; empty makes one up when the address is not a loopback one."""
    hosts: tuple[str, ...] = ()
    """Further names under which a browser may reach the viewer."""
    cache: str = ""
    """The folder of the indexes; empty is COMITY_CACHE or ~/.cache/comity."""
    ratings: str = ""
    """The SQLite file of human ratings; empty is ratings.sqlite beside the runs."""
    export: str = ""
    """Write this run as static pages and stop."""
    out: str = ""
    """The folder for --export; it must not exist or be empty."""
    seed: int = 0
    threads: int = 0
    """CPU threads for playing; 0 lets the libraries choose."""
    model: ModelConfig = field(default_factory=ModelConfig)
    negotiation: NegotiationConfig = field(default_factory=NegotiationConfig)
    judges: JudgeConfig = field(default_factory=JudgeConfig)
    access: AccessConfig = field(default_factory=AccessConfig)

    def __post_init__(self) -> None:
        if not 0 <= self.port <= 65535:
            raise ConfigError(f"port is {self.port}: choose 0 to 65535")
        if self.token and len(self.token) < 16:
            raise ConfigError(f"token has {len(self.token)} characters: choose 16 or more, or leave it empty")
        for name in ("seed", "threads"):
            if getattr(self, name) < 0:
                raise ConfigError(f"{name} is {getattr(self, name)}: choose 0 or more")
        if bool(self.export) != bool(self.out):
            raise ConfigError("export and out belong together: give --export RUN --out FOLDER")
