"""The page in the browser: plain ES modules and CSS in ``static``, served as they are by `chat.transport.http`."""

from pathlib import Path
from typing import Final

STATIC: Final = Path(__file__).parent / "static"
