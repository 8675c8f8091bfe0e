"""What every client program here agrees on: the command line, the records of a story, one JSON object per line of output.

    CLIENT COMMAND --bootstrap HOST:PORT [--name value]...

    produce  --topic T --codec C --prefix P --count N --first-timestamp MS [--idempotent true]
                                            the records of `record`, then {"event":"produced"}
    consume  --topics A,B --count N         every record from the beginning, as {"event":"record"}, then {"event":"end"}
    group    --group G --topics A,B [--strategy S] [--instance I] [--out FILE]
                                            runs until "leave" is read from standard input, committing what it has read:
                                            {"event":"assigned"|"revoked","partitions":[[topic,partition],...]}; records go
                                            to standard output, or to FILE as partition TAB offset TAB value
    lines    --topic T --codec C --file F   every line of F as a value, idempotent, acks=all; {"event":"progress"}
    sequence --topic T --name N --keys K --partitions P     (Java and franz-go)
                                            numbered values "N:0", "N:1", … until "leave" is read, idempotent, acks=all, under
                                            the keys "N-0" to "N-(K-1)" in turn, key k in partition k modulo P:
                                            {"event":"acknowledged","value":..,"partition":..,"offset":..} or
                                            {"event":"refused","value":..,"why":..}; {"event":"left"} when all is answered
    commit   --group G --topic T --partition N --offset N --metadata M
    committed --group G --topic T --partition N                             {"event":"committed","offset":..,"metadata":..}
    admin    --prefix P                     that client's own admin calls, one {"step":...} each
"""

import json
import sys
import threading
import time

# Past this a command gives up: far above what any of them needs, so that only a hang meets it.
PATIENCE_S = 120


def arguments():
    """The command and its options."""
    words = sys.argv[1:]
    options = {}
    for name, value in zip(words[1::2], words[2::2], strict=True):
        if not name.startswith("--"):
            raise SystemExit(f"not an option: {name}")
        options[name[2:]] = value
    return words[0], options


def record(o, i):
    """Key, value, headers and timestamp of the i-th record; some have no key, some no value."""
    prefix = o["prefix"]
    key = None if i % 50 == 48 else f"{prefix}-key-{i}".encode()
    value = None if i % 50 == 49 else (f"{prefix}-value-{i}-" + "chronik " * 16).encode()
    headers = [("origin", prefix.encode()), ("number", str(i).encode())]
    return key, value, headers, int(o["first-timestamp"]) + i


_output = threading.Lock()


def emit(**fields):
    with _output:
        print(json.dumps(fields), flush=True)


def text(value):
    return None if value is None else bytes(value).decode()


def emit_record(topic, partition, offset, timestamp, key, value, headers):
    emit(
        event="record",
        topic=topic,
        partition=partition,
        offset=offset,
        timestamp=timestamp,
        key=text(key),
        value=text(value),
        headers=[[name, text(held)] for name, held in headers or []],
    )


def emit_partitions(event, partitions):
    emit(event=event, partitions=sorted([list(partition) for partition in partitions]))


class Orders:
    """Lines from standard input, without blocking: a group member leaves when told to, or when nobody can tell it any more."""

    def __init__(self):
        self._leave = threading.Event()
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self):
        for line in sys.stdin:
            if line.strip() == "leave":
                break
        self._leave.set()

    def leave(self):
        return self._leave.is_set()


class Sink:
    """Where a group member puts its records."""

    def __init__(self, path):
        self._file = open(path, "ab") if path else None

    def record(self, topic, partition, offset, timestamp, key, value, headers):
        if self._file is None:
            emit_record(topic, partition, offset, timestamp, key, value, headers)
        else:
            self._file.write(b"%d\t%d\t%s\n" % (partition, offset, value or b""))

    def flush(self):
        if self._file is not None:
            self._file.flush()


def deadline():
    end = time.monotonic() + PATIENCE_S
    return lambda: time.monotonic() < end


def eventually(condition):
    """Waits for what admin calls promise only eventually, and says whether it came."""
    within = deadline()
    while within():
        if condition():
            return True
        time.sleep(0.05)
    return False
