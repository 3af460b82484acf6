"""The records of a history page."""

from typing import Any

import attrs

from chat.client.delivery import Hidden
from chat.errors import RemoteProtocolError
from chat.protocol import codec
from chat.protocol.messages import HistoryPage


def page_records(page: HistoryPage) -> list[tuple[int, Any]]:
    """(first seq, record) of every record, ascending, named by the page's conv; what is no record is left out."""
    records: list[tuple[int, Any]] = []
    for data in page.messages:
        if data.get("type") == "hidden":
            first, last = data.get("from_seq"), data.get("to_seq")
            if isinstance(first, int) and isinstance(last, int) and first <= last:
                records.append((first, Hidden(conv=page.conv, epoch=page.epoch, from_seq=first, seq=last)))
            continue
        try:
            record: Any = codec.decode_record(data)
        except RemoteProtocolError:
            continue  # the reader is told that it is missing
        if isinstance(record.seq, int) and record.seq > 0:
            if record.conv != page.conv or record.epoch != page.epoch:
                record = attrs.evolve(record, conv=page.conv, epoch=page.epoch)
            records.append((record.seq, record))
    return records
