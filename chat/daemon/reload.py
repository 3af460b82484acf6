"""What changes while the daemon runs (SIGHUP)."""

from typing import Any

from chat.config import Config
from chat.daemon.parts import origins
from chat.log import get_logger
from chat.transport import certificates, http

log = get_logger("chat.daemon")


async def reload(config: Config, tls: Any, site: http.Site) -> None:
    """A new certificate; one that is broken leaves the old in use."""
    try:
        certificates.reload(tls, config.certificate, config.key)
        site.origins = origins(config)
        log.info("certificate_reloaded")
    except (OSError, ValueError) as error:
        log.error("certificate_kept", reason=str(error))
