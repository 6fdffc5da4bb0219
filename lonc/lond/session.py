"""One connection to the built-in peer, from accept to close."""

from __future__ import annotations

from .faults import CONNECT, CUT, IDLE, LATE, REFUSE, RESET, SAY, STALL, TWICE
from .greeting import Greeting, WrongLine
from .lines import CutLine, Lines, LineTooLong
from .requests import Requests

TYPE_CHECKING = False
if TYPE_CHECKING:
    import socket
    from collections.abc import Callable

    from .commands import Call
    from .faults import Fault, Faults
    from .profile import Profile

# An envelope of the longest request that a broker lets pass by default (8 MiB) has twice that.
MAX_LINE = 32 * 1024 * 1024


class SessionOver(Exception):
    """The connection is to be closed. Raised by `carry_out`, it ends `Session.run` quietly."""


class Session:
    """Talks to one client in blocking style.

    carry_out  callable: a Call -> its answer without LF
    complain   callable: what the client did wrong, without arguments
    """

    def __init__(
        self,
        sock: socket.socket,
        profile: Profile,
        *,
        faults: Faults,
        carry_out: Callable[[Call], bytes],
        complain: Callable[[str], None],
    ) -> None:
        self._lines = Lines(sock, MAX_LINE)
        self._profile = profile
        self._faults = faults
        self._carry_out = carry_out
        self._complain = complain

    def run(self) -> None:
        """Serve the client until either side has enough. The caller closes the socket."""
        try:
            self._pause(CONNECT)
            requests = self._greet()
            while True:
                self._pause(IDLE)
                self._serve(requests, self._next_line())
        except (SessionOver, OSError):
            pass  # a client may go in the middle of anything

    def abort(self) -> None:
        """End the connection from another thread; `run` returns soon after."""
        self._lines.abort()

    def _greet(self) -> Requests:
        """Hold the dialogue; return who takes the requests."""
        greeting = Greeting(self._profile)
        while (step := greeting.step) is not None:
            line = self._next_line()
            try:
                answer = greeting.receive(line)
            except WrongLine as wrong:
                self._reject(wrong)
                raise SessionOver from wrong
            self._deliver(answer, self._faults.at_step(step))
        return Requests(
            self._profile,
            host_id=greeting.host_id,
            key=greeting.key,
            carry_out=self._carry_out,
            complain=self._complain,
        )

    def _serve(self, requests: Requests, line: bytes) -> None:
        try:
            answer = requests.receive(line)
        except WrongLine as wrong:
            self._reject(wrong)
            return
        self._deliver(answer.text, self._faults.at_command(answer.word))
        if answer.last:
            raise SessionOver

    def _next_line(self) -> bytes:
        try:
            line = self._lines.next()
        except CutLine as cut:
            self._complain(f"ended the stream in the middle of a line, after {cut}")
            if not self._profile.executes_cut_lines:
                raise SessionOver from cut
            return cut.rest
        except LineTooLong:
            self._complain(f"sent a line of more than {MAX_LINE} bytes")
            raise SessionOver from None
        if line is None:
            raise SessionOver
        return line

    def _reject(self, wrong: WrongLine) -> None:
        self._complain(str(wrong))
        self._send(wrong.answer)

    def _send(self, *answers: bytes) -> None:
        self._expect_silence()
        self._lines.send(b"".join(answer + b"\n" for answer in answers))

    def _expect_silence(self) -> None:
        """Complain of a client that has not waited for its answer."""
        if self._lines.waiting():
            self._complain("sent more before it had its answer")

    def _pause(self, step: str) -> None:
        """Let the fault act, if any, that waits where the client is to speak next."""
        fault = self._faults.at_step(step)
        if fault is None:
            return
        if fault.kind == LATE:
            self._lines.hold(fault.seconds)
        elif fault.kind == SAY:
            self._lines.send(fault.text + b"\n")
        elif fault.kind == STALL:
            self._lines.hold(None)
            raise SessionOver
        else:
            self._end(fault)

    def _deliver(self, answer: bytes, fault: Fault | None) -> None:
        """Send an answer, or do with it what the fault says."""
        if fault is None:
            self._send(answer)
        elif fault.kind == LATE:
            self._lines.hold(fault.seconds)
            self._send(answer)
        elif fault.kind == TWICE:
            self._send_twice(answer, fault.seconds)
        elif fault.kind == SAY:
            self._send(fault.text)
        elif fault.kind == STALL:
            self._lines.hold(None)
            self._expect_silence()
            raise SessionOver
        elif fault.kind == CUT:
            self._expect_silence()
            self._lines.send((answer + b"\n")[: fault.byte])
            raise SessionOver
        else:
            self._expect_silence()
            self._end(fault)

    def _send_twice(self, answer: bytes, seconds: float) -> None:
        if seconds == 0:
            self._send(answer, answer)
            return
        self._send(answer)
        self._lines.hold(seconds)
        self._lines.send(answer + b"\n")

    def _end(self, fault: Fault) -> None:
        """End the connection in the manner of the fault."""
        if fault.kind == REFUSE:
            self._lines.send(b"refused\n")
        elif fault.kind == RESET:
            self._lines.reset_on_close()
        raise SessionOver
