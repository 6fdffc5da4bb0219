"""The built-in peer: listens, and serves each connection in a thread of its own."""

from __future__ import annotations

import collections
import select
import socket
import threading
import traceback

from ..errors import ListenError
from .commands import Commands
from .faults import Faults
from .profile import Profile
from .session import Session, SessionOver
from .store import Store

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from types import TracebackType

    from .commands import Call
    from .faults import Fault

    Handler = Callable[[bytes], bytes]
    Log = Callable[[str], None]

_BACKLOG = 1024

# After a failing accept (no descriptors left, say); seconds.
_PAUSE = 1.0


class Peer:
    """A stand-in for lond on another machine, strict with those who call it.

    id        the peer's host id
    dialect   `classic`, `versioned` or `line`
    listen    (host, port); port 0 takes a free one, and keeps it when started again
    also      further host ids that it accepts in a `sethost:`
    caller    the host id of the machine whose brokers call (half of the session key)
    version   the revision that it claims; up to 1.321 it takes no `sethost:<id>:<command>`
    store     a Store; None: one in memory that lives as long as this object
    handler   callable: a command (decrypted, without `sethost:` and LF) -> its answer without LF,
              in place of the commands of lonc.lond.commands. Called by several threads. If it
              raises, the log is told and that connection is closed. Where the dialect has a
              farewell, the handler does not see it
    faults    Fault objects to begin with; more by `faults.add`
    executes_cut_lines  take a line that the end of the stream cut for a whole one, as lond does
    record    whether to count commands by their text in `executed`, arguments and all
    log       callable: one line of text; told every complaint. Called by several threads

    address      (host, port) that it listens on; the port is 0 before the first `start`
    faults       the Faults
    store        the Store
    complaints   what clients did wrong, oldest first: `<client's address>: <what>`
    executed     collections.Counter: command (decrypted, without `sethost:`) -> how often it was
                 carried out. Counted before it is carried out, so before anyone has an answer
    served       how many commands were carried out
    accepted     how many connections there were
    connections  how many there are
    most_connections  the most that there were at once

    Raises UsageError for an argument that cannot be.

    Used as a context manager it is started, and closed at the end.
    """

    def __init__(
        self,
        *,
        id: str = "msul1",
        dialect: str = "versioned",
        listen: tuple[str, int] = ("127.0.0.1", 0),
        also: Iterable[str] = (),
        caller: str = "msul2",
        version: str = "1.489",
        store: Store | None = None,
        handler: Handler | None = None,
        faults: Iterable[Fault] = (),
        executes_cut_lines: bool = False,
        record: bool = True,
        log: Log | None = None,
    ) -> None:
        self._profile = Profile(
            id=id,
            also=also,
            caller=caller,
            dialect=dialect,
            version=version,
            executes_cut_lines=executes_cut_lines,
        )
        self.faults = Faults(faults, steps=self._profile.steps)
        self._owns_store = store is None
        self.store = Store() if store is None else store
        self._commands = Commands(
            self.store, version=version, caller=caller, workload=lambda: self.connections
        )
        self._handler = handler
        self._record = record
        self._log = log
        self.address = listen
        self.complaints: list[str] = []
        self.executed: collections.Counter[bytes] = collections.Counter()
        self.served = 0
        self.accepted = 0
        self.most_connections = 0
        self._lock = threading.Lock()
        self._sessions: dict[Session, threading.Thread] = {}
        self._acceptor: threading.Thread | None = None
        self._listener: socket.socket
        self._wake: socket.socket

    @property
    def connections(self) -> int:
        """How many connections there are now."""
        return len(self._sessions)

    def start(self) -> None:
        """Listen, and serve in threads. Does nothing when it is started already.

        Raises ListenError, a UsageError, when the address cannot be had.
        """
        if self._acceptor is not None:
            return
        self._listener = _listener(self.address)
        # A client may give up between poll and accept; accept must not wait for the next one.
        self._listener.setblocking(False)
        self.address = (self.address[0], self._listener.getsockname()[1])
        woken, self._wake = socket.socketpair()
        self._acceptor = threading.Thread(target=self._accept, args=(woken,), daemon=True)
        self._acceptor.start()

    def stop(self) -> None:
        """Stop listening, close all connections, and wait until their threads are done.

        A command that is being carried out is finished first. Does nothing when it is not started.
        It can be started again, on the same port, with its store, faults and counters. Not to be
        called by a handler.
        """
        if self._acceptor is None:
            return
        self._wake.close()
        self._acceptor.join()
        self._acceptor = None
        self._listener.close()
        with self._lock:
            threads = list(self._sessions.values())
        self.disconnect()
        for thread in threads:
            thread.join()

    def disconnect(self) -> None:
        """Close all connections that there are now, and go on listening."""
        with self._lock:
            for session in self._sessions:
                session.abort()

    def close(self) -> None:
        """Stop, and close the store unless it was given by the caller."""
        self.stop()
        if self._owns_store:
            self.store.close()

    def __enter__(self) -> Peer:
        try:
            self.start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _accept(self, woken: socket.socket) -> None:
        """Take connections until the other end of `woken` is closed."""
        both, stop_only = select.poll(), select.poll()
        stop_only.register(woken, select.POLLIN)
        both.register(woken, select.POLLIN)
        both.register(self._listener, select.POLLIN)
        with woken:
            while woken.fileno() not in dict(both.poll()):
                try:
                    self._serve(*self._listener.accept())
                except BlockingIOError:
                    pass
                except (OSError, RuntimeError) as error:
                    self._tell(f"cannot take a connection: {error}")
                    stop_only.poll(_PAUSE * 1000)

    def _serve(self, sock: socket.socket, client: tuple[str, int]) -> None:
        """Serve a connection in a thread. Raises RuntimeError where no thread can be had."""
        sock.setblocking(True)
        session = Session(
            sock,
            self._profile,
            faults=self.faults,
            carry_out=self._carry_out,
            complain=lambda what: self._complain(f"{client[0]}:{client[1]}: {what}"),
        )
        thread = threading.Thread(target=self._run, args=(session, sock), daemon=True)
        with self._lock:
            self._sessions[session] = thread
            self.accepted += 1
            self.most_connections = max(self.most_connections, len(self._sessions))
        try:
            thread.start()
        except RuntimeError:
            self._forget(session, sock)
            raise

    def _run(self, session: Session, sock: socket.socket) -> None:
        try:
            session.run()
        finally:
            self._forget(session, sock)

    def _forget(self, session: Session, sock: socket.socket) -> None:
        # Out of the table first: `disconnect` must not find a descriptor that is another's by now.
        with self._lock:
            del self._sessions[session]
        sock.close()

    def _carry_out(self, call: Call) -> bytes:
        farewell = call.command + b"\n" == self._profile.dialect.farewell
        if not farewell:
            with self._lock:
                self.served += 1
                if self._record:
                    self.executed[call.command] += 1
        if farewell or self._handler is None:
            return self._commands.answer(call)
        try:
            answer = self._handler(call.command)
            if b"\n" in answer:
                raise ValueError("an answer is one line, and this one has a line feed in it")
        except Exception as error:
            # Its text may quote the request; where it came from does not.
            places = "".join(traceback.format_tb(error.__traceback__))
            self._tell(f"the handler raised {type(error).__name__}\n{places}")
            raise SessionOver from error
        return answer

    def _complain(self, text: str) -> None:
        self.complaints.append(text)
        self._tell(text)

    def _tell(self, text: str) -> None:
        if self._log is not None:
            self._log(text)


def _listener(address: tuple[str, int]) -> socket.socket:
    """Return a listening socket. Raises ListenError."""
    host, port = address
    sock = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    try:
        # The port may be taken while connections of the last one to have it still linger.
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # what is accepted inherits it
        sock.bind(address)
        sock.listen(_BACKLOG)
    except (OSError, OverflowError) as error:
        sock.close()
        reason = getattr(error, "strerror", None) or str(error)
        raise ListenError(f"cannot listen on {host}:{port}: {reason}") from error
    return sock
