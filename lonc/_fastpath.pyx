# cython: language_level=3, boundscheck=False, wraparound=False, initializedcheck=False
"""The steady path of a request, compiled: the twin of `_purepath`, which has the theory.

Classes, methods, attributes, limits, and the order in which things happen are the same there; only
what differs is explained here:

* A `Port` on a descriptor is called without Python in between; any other port as an object.
* Waiting is done on an epoll of our own, unless a selector is given.  Its entries are found by
  descriptor and carry a generation, so that an event of a descriptor that was closed and given out
  again meanwhile cannot reach the wrong handler.
* A link receives straight into its buffer and sends the reply from there.  Where the client does
  not take all of it at once the buffer changes hands, so that a large reply is never copied.
* What clients send is received into one buffer for all of them.  It holds nothing when Python code
  can run: the bytes are taken out first.
"""

cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.exc cimport PyErr_CheckSignals, PyErr_SetFromErrno
from cpython.mem cimport PyMem_Free, PyMem_Malloc, PyMem_Realloc
from cpython.ref cimport Py_DECREF, Py_INCREF, PyObject
from libc.errno cimport EAGAIN, EBADF, ECONNABORTED, EINTR, ENOENT, errno
from libc.math cimport ceil
from libc.stdint cimport uint32_t, uint64_t
from libc.string cimport memchr, memcpy, memmove, memset

import os
import selectors

cdef extern from "<time.h>" nogil:
    struct timespec:
        long tv_sec
        long tv_nsec
    int CLOCK_MONOTONIC
    int clock_gettime(int, timespec *)

cdef extern from "<unistd.h>" nogil:
    int c_close "close" (int)

cdef extern from "<sys/socket.h>" nogil:
    int MSG_DONTWAIT, MSG_NOSIGNAL, SOCK_NONBLOCK, SOCK_CLOEXEC, SOL_SOCKET, SO_LINGER, SO_PEERCRED
    struct linger:
        int l_onoff
        int l_linger
    struct ucred:
        int pid
        unsigned int uid
        unsigned int gid
    ssize_t c_recv "recv" (int, void *, size_t, int)
    ssize_t c_send "send" (int, const void *, size_t, int)
    int accept4(int, void *, void *, int)
    int setsockopt(int, int, int, const void *, unsigned int)
    int getsockopt(int, int, int, void *, unsigned int *)

cdef extern from "<sys/epoll.h>" nogil:
    int EPOLL_CLOEXEC, EPOLL_CTL_ADD, EPOLL_CTL_DEL, EPOLL_CTL_MOD
    unsigned int EPOLLIN, EPOLLOUT, EPOLLERR, EPOLLHUP, EPOLLRDHUP
    ctypedef union epoll_data_t:
        uint64_t u64
    struct epoll_event:
        uint32_t events
        epoll_data_t data
    int epoll_create1(int)
    int epoll_ctl(int, int, int, epoll_event *)
    int epoll_wait(int, epoll_event *, int, int)


READ = selectors.EVENT_READ
WRITE = selectors.EVENT_WRITE
HANGUP = 4

PREPARING = "preparing"
IDLE = "idle"
BUSY = "busy"
CLOSED = "closed"

CON_LOST = b"con_lost\n"
LONGEST_WAIT = 2147483.0
RECEIVE = 98304
READS_A_TURN = 16
ACCEPTS_A_TURN = 64
BUCKETS = 320

cdef enum:
    C_READ = 1
    C_WRITE = 2
    C_HANGUP = 4
    C_RECEIVE = 98304
    C_READS_A_TURN = 16
    C_ACCEPTS_A_TURN = 64
    C_BUCKETS = 320
    # A buffer that is empty keeps this much memory at most: room for most replies.
    C_KEPT = 262144
    # How many ready descriptors the kernel is asked for at a time.
    EVENTS = 512

cdef enum:
    RANK_PEER = 0
    RANK_CLIENT = 1
    RANK_LISTENER = 2
    RANK_WATCHER = 3

cdef enum State:
    S_PREPARING
    S_IDLE
    S_BUSY
    S_CLOSED

cdef enum:
    AGAIN = -1
    FAILED = -2

# How often this process has forked, counted from the first poller on.
cdef uint32_t forks = 0
cdef bint counting_forks = False

cdef tuple STATES = (PREPARING, IDLE, BUSY, CLOSED)
cdef double INFINITY = float("inf")
cdef double C_LONGEST_WAIT = LONGEST_WAIT
cdef char received[C_RECEIVE]


cdef inline int _bucket(uint64_t microseconds) noexcept:
    cdef uint64_t rest = microseconds
    cdef int shift = 0
    while rest >= 16:
        rest >>= 1
        shift += 1
    shift = shift * 8 + <int> rest
    return shift if shift < C_BUCKETS else C_BUCKETS - 1


def bucket_of(microseconds):
    """Return the index in `Exchange.latency` that counts a latency of so many microseconds."""
    return _bucket(min(microseconds, 1 << 62))


def bucket_floor(int index):
    """Return the smallest latency, in microseconds, that bucket `index` counts."""
    if index < 16:
        return index
    shift = index // 8 - 1
    return (index - shift * 8) << shift


def _count_fork():
    global forks
    forks += 1


@cython.final
cdef class Buffer:
    """Bytes that arrived and wait to be taken; see the twin.

    ::

        data                                                             data + capacity
        | taken | searched, no LF in it | not searched yet | room to receive |
                start                   searched           end
    """

    cdef char *data
    cdef Py_ssize_t start, searched, end, capacity

    def __dealloc__(self):
        PyMem_Free(self.data)

    def __len__(self):
        return self.end - self.start

    def append(self, data):
        """Put `data` (any bytes-like object) behind what is there."""
        cdef Py_buffer view
        PyObject_GetBuffer(data, &view, PyBUF_SIMPLE)
        try:
            self.put(<const char *> view.buf, view.len)
        finally:
            PyBuffer_Release(&view)

    def line_end(self):
        """Return the length of the first line with its LF, or 0 while there is no whole line."""
        return self.line()

    def peek(self, Py_ssize_t size):
        """Return a copy of the first `size` bytes, fewer if there are fewer; nothing is removed."""
        if size < 0:
            raise ValueError("a size cannot be negative")
        if size > self.end - self.start:
            size = self.end - self.start
        return PyBytes_FromStringAndSize(self.data + self.start, size)

    def advance(self, Py_ssize_t size):
        """Remove the first `size` bytes; ValueError, and nothing removed, if there are fewer."""
        if size < 0 or size > self.end - self.start:
            raise ValueError(f"cannot remove {size} of {self.end - self.start} bytes")
        self.skip(size)

    def take(self, Py_ssize_t size):
        """Remove the first `size` bytes and return them; ValueError if there are fewer."""
        taken = self.peek(size)
        self.advance(size)
        return taken

    def clear(self):
        """Remove everything and give the memory back."""
        PyMem_Free(self.data)
        self.data = NULL
        self.start = self.searched = self.end = self.capacity = 0

    cdef inline Py_ssize_t size(self) noexcept:
        return self.end - self.start

    cdef inline char *first(self) noexcept:
        return self.data + self.start

    cdef int reserve(self, Py_ssize_t room) except -1:
        """Make room behind the end: by moving down if half is free, else by doubling."""
        cdef Py_ssize_t capacity
        cdef char *data
        if self.capacity - self.end >= room:
            return 0
        if self.start and self.end - self.start + room <= self.capacity // 2:
            memmove(self.data, self.data + self.start, self.end - self.start)
            self.end -= self.start
            self.searched -= self.start
            self.start = 0
            return 0
        capacity = self.capacity * 2
        if capacity < self.end + room:
            capacity = self.end + room
        data = <char *> PyMem_Realloc(self.data, capacity)
        if data == NULL:
            raise MemoryError
        self.data = data
        self.capacity = capacity
        return 0

    cdef int put(self, const char *data, Py_ssize_t size) except -1:
        if size:
            self.reserve(size)
            memcpy(self.data + self.end, data, size)
            self.end += size
        return 0

    cdef Py_ssize_t line(self) noexcept:
        cdef char *found = NULL
        if self.end > self.searched:
            found = <char *> memchr(self.data + self.searched, c'\n', self.end - self.searched)
        if found == NULL:
            self.searched = self.end
            return 0
        self.searched = found - self.data
        return self.searched + 1 - self.start

    cdef inline void skip(self, Py_ssize_t size) noexcept:
        self.start += size
        if self.start == self.end:
            if self.capacity > C_KEPT:
                self.clear()
            self.start = self.searched = self.end = 0
        elif self.searched < self.start:
            self.searched = self.start


@cython.final
cdef class Port:
    """A connected stream socket: the only place that receives and sends; see the twin."""

    cdef int fd

    def __cinit__(self):
        self.fd = -1

    def __init__(self, int fd):
        self.fd = fd

    def __dealloc__(self):
        if self.fd >= 0:
            c_close(self.fd)

    def fileno(self):
        """Return the descriptor, -1 after `close`."""
        return self.fd

    def recv(self, Py_ssize_t size):
        """Return up to `size` bytes, b"" at end of file, None if nothing is there now; OSError."""
        cdef bytes data = PyBytes_FromStringAndSize(NULL, size)
        cdef Py_ssize_t got = _recv(self.fd, PyBytes_AS_STRING(data), size)
        if got == AGAIN:
            return None
        if got == FAILED:
            PyErr_SetFromErrno(OSError)
        return data[:got]

    def send(self, data):
        """Return how many bytes the kernel took, 0 when it takes none now; OSError."""
        cdef Py_buffer view
        cdef Py_ssize_t sent
        PyObject_GetBuffer(data, &view, PyBUF_SIMPLE)
        sent = _send(self.fd, <const char *> view.buf, view.len)
        PyBuffer_Release(&view)
        if sent == FAILED:
            PyErr_SetFromErrno(OSError)
        return sent

    def gone(self):
        """Say whether the other side of a Unix socket has closed it altogether."""
        return _send(self.fd, b"", 0) == FAILED

    def close(self):
        """Close the descriptor; what the kernel took is still delivered."""
        if self.fd >= 0:
            c_close(self.fd)
            self.fd = -1

    def reset(self):
        """Close so that the other side sees an error, never a clean end of file."""
        cdef linger now
        now.l_onoff = 1
        now.l_linger = 0
        if self.fd >= 0:
            setsockopt(self.fd, SOL_SOCKET, SO_LINGER, &now, sizeof(now))
        self.close()


cdef inline Py_ssize_t _recv(int fd, char *into, Py_ssize_t room) noexcept:
    cdef Py_ssize_t got
    while True:
        got = c_recv(fd, into, room, MSG_DONTWAIT)
        if got >= 0:
            return got
        if errno == EAGAIN:
            return AGAIN
        if errno != EINTR:
            return FAILED


cdef inline Py_ssize_t _send(int fd, const char *data, Py_ssize_t size) noexcept:
    cdef Py_ssize_t sent
    while True:
        sent = c_send(fd, data, size, MSG_NOSIGNAL | MSG_DONTWAIT)
        if sent >= 0:
            return sent
        if errno == EAGAIN:
            return 0
        if errno != EINTR:
            return FAILED


cdef object _reason(str doing, object error):
    return f"{doing} failed: {os.strerror(error.errno) if error.errno else error}"


cdef class Handler:
    """What the poller dispatches to: a link, a client or a listener."""

    cdef readonly int fd

    cdef int ready(self, int mask) except -1:
        raise NotImplementedError


cdef class Endpoint(Handler):
    """A handler with a port.  `native` is its port's descriptor, or -1 for a port of Python."""

    cdef readonly object port
    cdef int native
    cdef object error

    cdef int _attach(self, object port) except -1:
        self.port = port
        self.fd = port.fileno()
        self.native = self.fd if type(port) is Port else -1
        return 0

    cdef Py_ssize_t _receive_into(self, char *into) except -3:
        """Receive C_RECEIVE bytes at most; AGAIN, or FAILED with `error` set."""
        cdef bytes data
        cdef Py_ssize_t got
        if self.native >= 0:
            got = _recv(self.native, into, C_RECEIVE)
            if got == FAILED:
                self.error = OSError(errno, "")
            return got
        try:
            data = self.port.recv(C_RECEIVE)
        except OSError as error:
            self.error = error
            return FAILED
        if data is None:
            return AGAIN
        got = PyBytes_GET_SIZE(data)
        if got > C_RECEIVE:
            raise ValueError(f"{type(self.port).__name__}.recv({C_RECEIVE}) returned {got} bytes")
        memcpy(into, PyBytes_AS_STRING(data), got)
        return got

    cdef Py_ssize_t _send_from(self, const char *data, Py_ssize_t size) except -3:
        """Send; return how many bytes were taken, or FAILED with `error` set."""
        cdef Py_ssize_t sent
        if self.native >= 0:
            sent = _send(self.native, data, size)
            if sent == FAILED:
                self.error = OSError(errno, "")
            return sent
        try:
            return self.port.send(PyBytes_FromStringAndSize(data, size))
        except OSError as error:
            self.error = error
            return FAILED


cdef struct Entry:
    PyObject *handler
    int mask
    int rank
    uint32_t generation
    # The number of the wait that found it ready last.
    uint32_t found


cdef struct Ready:
    PyObject *handler
    int mask


cdef class Poller:
    """Waits for descriptors, and dispatches those of clients, links and listeners; see the twin."""

    cdef readonly double now
    cdef public list resumed
    cdef public object died
    cdef object _selector
    cdef object _clock
    cdef int _epoll
    # Indexed by descriptor.
    cdef Entry *_entries
    cdef int _size
    cdef uint32_t _generation, _waits, _forks
    # By rank.
    cdef Ready *_ready[3]
    cdef int _count[3]
    cdef int _room[3]

    def __cinit__(self):
        self._epoll = -1

    def __init__(self, selector=None, clock=None):
        global counting_forks
        if not counting_forks:
            os.register_at_fork(before=_count_fork)
            counting_forks = True
        self._forks = forks
        self._selector = selector
        self._clock = clock
        self.resumed = []
        self.died = None
        if selector is None:
            self._open()
        self.update()

    def __dealloc__(self):
        cdef int fd
        self._forget_ready()
        for fd in range(self._size):
            if self._entries[fd].handler != NULL:
                Py_DECREF(<object> self._entries[fd].handler)
        PyMem_Free(self._entries)
        for fd in range(3):
            PyMem_Free(self._ready[fd])
        if self._epoll >= 0:
            c_close(self._epoll)

    def update(self):
        """Read the clock, and return `now`."""
        self._tick()
        return self.now

    def watch(self, int fd, int mask, handler):
        """Have `wait` return `handler` when `fd` is ready for `mask`; KeyError if it is watched."""
        self._add(fd, mask, RANK_WATCHER, handler)

    def modify(self, int fd, int mask):
        """Watch `fd` for `mask` from now on; KeyError if it is not watched."""
        self._modify(fd, mask)

    def discard(self, int fd):
        """Forget `fd`, which is still open; KeyError if it is not watched."""
        self._discard(fd, True)

    def wait(self, timeout):
        """Wait until something is ready, at most `timeout` seconds (None: without end).

        Sets `now`.  Returns the watchers' handlers that are ready, each with its mask; clients,
        links and listeners that are ready are kept for `serve`.
        """
        cdef list watchers = []
        cdef epoll_event events[EVENTS]
        cdef int milliseconds, found, fresh, i
        if self.resumed:
            timeout = 0
        elif timeout is not None and <double> timeout > C_LONGEST_WAIT:
            timeout = LONGEST_WAIT
        self._forget_ready()
        if self._selector is not None:
            for key, mask in self._selector.select(timeout):
                self._found(key.fd, mask, watchers)
            self._tick()
            return watchers
        milliseconds = -1
        if timeout is not None:
            # Rounded up, so that a deadline has passed when the wait is over.
            milliseconds = <int> ceil(max(0.0, <double> timeout) * 1e3)
        if milliseconds:
            with nogil:
                found = epoll_wait(self._epoll, events, EVENTS, milliseconds)
        else:
            found = epoll_wait(self._epoll, events, EVENTS, 0)
        if found < 0:
            if errno != EINTR:
                PyErr_SetFromErrno(OSError)
            PyErr_CheckSignals()
        self._tick()
        self._waits += 1
        while found > 0:
            fresh = 0
            for i in range(found):
                fresh += self._sort(&events[i], watchers)
            if found < EVENTS or not fresh:
                break
            # There may be more, and a peer among them must be served before the clients.  The
            # kernel goes round: it reports what was reported already when it has no other.
            found = epoll_wait(self._epoll, events, EVENTS, 0)
        return watchers

    def serve(self):
        """Handle what `wait` kept: everything from peers, then from clients, then new clients.

        In this order, so that a link that was closed, or spoke out of turn, is never given a
        request that arrived in the same moment.  An exception goes to `died`, if that is set, and
        the others have their turn.  Returns whether there was anything to handle.
        """
        cdef bint any = self._count[0] or self._count[1] or self._count[2]
        if not any and not self.resumed:
            return False
        self._dispatch(RANK_PEER)
        self._dispatch(RANK_CLIENT)
        if self.resumed:
            self._resume()
        self._dispatch(RANK_LISTENER)
        return True

    def fileno(self):
        """Return a descriptor that is readable while something is ready; ValueError if none."""
        if self._selector is None:
            return self._epoll
        try:
            return int(self._selector.fileno())
        except AttributeError:
            raise ValueError(f"{type(self._selector).__name__} has no descriptor") from None

    def renew(self):
        """Replace the kernel's object, which a fork made common property, by a new one."""
        cdef int fd
        if self._selector is None:
            c_close(self._epoll)
            self._open()
            for fd in range(self._size):
                if self._entries[fd].handler != NULL:
                    self._control(EPOLL_CTL_ADD, fd)

    def close(self):
        """Forget all descriptors, without closing them, and close an epoll of our own."""
        cdef int fd
        for fd in range(self._size):
            if self._entries[fd].handler != NULL:
                self._discard(fd, False)
        if self._epoll >= 0:
            c_close(self._epoll)
            self._epoll = -1

    cdef int _open(self) except -1:
        self._epoll = epoll_create1(EPOLL_CLOEXEC)
        if self._epoll < 0:
            PyErr_SetFromErrno(OSError)
        return 0

    cdef int _tick(self) except -1:
        cdef timespec now
        if self._clock is None:
            clock_gettime(CLOCK_MONOTONIC, &now)
            self.now = now.tv_sec + now.tv_nsec * 1e-9
        else:
            self.now = self._clock()
        return 0

    cdef int _add(self, int fd, int mask, int rank, object handler) except -1:
        cdef Entry *entry
        cdef int size
        if fd < 0:
            raise ValueError(f"{fd} is not a descriptor")
        if fd >= self._size:
            size = max(64, self._size * 2, fd + 1)
            entry = <Entry *> PyMem_Realloc(self._entries, size * sizeof(Entry))
            if entry == NULL:
                raise MemoryError
            memset(entry + self._size, 0, (size - self._size) * sizeof(Entry))
            self._entries = entry
            self._size = size
        entry = &self._entries[fd]
        if entry.handler != NULL:
            raise KeyError(f"descriptor {fd} is watched already")
        self._generation += 1
        entry.generation = self._generation
        entry.mask = mask
        entry.rank = rank
        if self._selector is not None:
            if mask:
                self._selector.register(fd, mask, None)
        else:
            self._control(EPOLL_CTL_ADD, fd)
        entry.handler = <PyObject *> handler
        Py_INCREF(handler)
        return 0

    cdef Entry *_entry(self, int fd) except NULL:
        if fd < 0 or fd >= self._size or self._entries[fd].handler == NULL:
            raise KeyError(fd)
        return &self._entries[fd]

    cdef int _modify(self, int fd, int mask) except -1:
        cdef Entry *entry = self._entry(fd)
        cdef int old = entry.mask
        if mask == old:
            return 0
        entry.mask = mask
        if self._selector is None:
            self._control(EPOLL_CTL_MOD, fd)
        elif not old:
            self._selector.register(fd, mask, None)
        elif not mask:
            self._selector.unregister(fd)
        else:
            self._selector.modify(fd, mask, None)
        return 0

    cdef int _discard(self, int fd, bint tell) except -1:
        """Forget `fd`.  With `tell` unset it or the epoll is about to be closed.

        That is enough, and saves a call, as long as no forked process can have a copy of it: the
        kernel would report it until the last copy is closed.
        """
        cdef Entry *entry = self._entry(fd)
        cdef object handler = <object> entry.handler
        entry.handler = NULL
        Py_DECREF(handler)
        if self._selector is not None:
            if entry.mask:
                self._selector.unregister(fd)
        elif tell or self._forks != forks:
            if epoll_ctl(self._epoll, EPOLL_CTL_DEL, fd, NULL) < 0:
                if errno != ENOENT and errno != EBADF:
                    PyErr_SetFromErrno(OSError)
        return 0

    cdef int _control(self, int operation, int fd) except -1:
        cdef Entry *entry = &self._entries[fd]
        cdef epoll_event event
        event.events = EPOLLRDHUP if entry.rank == RANK_PEER else 0
        if entry.mask & C_READ:
            event.events |= EPOLLIN
        if entry.mask & C_WRITE:
            event.events |= EPOLLOUT
        event.data.u64 = (<uint64_t> entry.generation << 32) | <uint32_t> fd
        if epoll_ctl(self._epoll, operation, fd, &event) < 0:
            PyErr_SetFromErrno(OSError)
        return 0

    cdef inline int _sort(self, epoll_event *event, list watchers) except -1:
        """Note one event of the epoll, and return 1; 0 for one that is stale, or noted already.

        A hang-up or an error counts as all that was asked for.
        """
        cdef int fd = <int> <uint32_t> event.data.u64
        cdef Entry *entry
        cdef int mask = 0
        if fd >= self._size:
            return 0
        entry = &self._entries[fd]
        if entry.handler == NULL or entry.generation != event.data.u64 >> 32:
            return 0
        if entry.found == self._waits:
            return 0
        entry.found = self._waits
        if event.events & EPOLLIN:
            mask |= C_READ
        if event.events & EPOLLOUT:
            mask |= C_WRITE
        if event.events & EPOLLRDHUP:
            mask |= C_HANGUP
        if event.events & (EPOLLHUP | EPOLLERR):
            mask |= entry.mask | C_HANGUP
        self._found(fd, mask, watchers)
        return 1

    cdef inline int _found(self, int fd, int mask, list watchers) except -1:
        cdef Entry *entry = &self._entries[fd]
        cdef int rank = entry.rank
        cdef Ready *ready
        if rank == RANK_WATCHER:
            mask &= entry.mask
            if mask:
                watchers.append((<object> entry.handler, mask))
            return 0
        if self._count[rank] == self._room[rank]:
            self._grow(rank)
        ready = &self._ready[rank][self._count[rank]]
        Py_INCREF(<object> entry.handler)
        ready.handler = entry.handler
        ready.mask = mask
        self._count[rank] += 1
        return 0

    cdef int _grow(self, int rank) except -1:
        cdef int room = max(64, 2 * self._room[rank])
        cdef Ready *ready = <Ready *> PyMem_Realloc(self._ready[rank], room * sizeof(Ready))
        if ready == NULL:
            raise MemoryError
        self._ready[rank] = ready
        self._room[rank] = room
        return 0

    cdef int _dispatch(self, int rank) except -1:
        cdef int i
        cdef Handler handler
        for i in range(self._count[rank]):
            if self._ready[rank][i].handler == NULL:
                # An exception ended the last time here.
                continue
            handler = <Handler> self._ready[rank][i].handler
            Py_DECREF(handler)
            self._ready[rank][i].handler = NULL
            try:
                handler.ready(self._ready[rank][i].mask)
            except Exception as error:
                self._fail(handler, error)
        self._count[rank] = 0
        return 0

    cdef int _resume(self) except -1:
        cdef list batch = self.resumed
        cdef Py_ssize_t done = 0
        self.resumed = []
        try:
            for each in batch:
                done += 1
                try:
                    each.resume()
                except Exception as error:
                    self._fail(each, error)
        finally:
            self.resumed[:0] = batch[done:]
        return 0

    cdef void _forget_ready(self) noexcept:
        cdef int rank, i
        for rank in range(3):
            for i in range(self._count[rank]):
                if self._ready[rank][i].handler != NULL:
                    Py_DECREF(<object> self._ready[rank][i].handler)
            self._count[rank] = 0

    cdef int _fail(self, handler, error) except -1:
        if self.died is None:
            raise error
        self.died(handler, error)
        return 0


@cython.freelist(64)
@cython.final
cdef class Transaction:
    """One request, from the moment it was taken until it ends, exactly once; see the twin."""

    cdef readonly bytes line
    cdef public Client client
    cdef public object callback
    cdef public object plan
    cdef public bint background, queued, done
    cdef public double since
    cdef public Py_ssize_t sent
    cdef public object reply
    cdef public object lost

    def __init__(self, bytes line, Client client=None, callback=None, bint background=False):
        self.line = line
        self.client = client
        self.callback = callback
        self.background = background

    def resume(self):
        """Tell the one who submitted it that it has ended."""
        if self.callback is not None:
            self.callback(self)


@cython.final
cdef class Queue:
    """Transactions in order, as a ring; one that leaves from the middle is looked for."""

    cdef list _slots
    cdef Py_ssize_t _head, _count

    def __cinit__(self):
        self._slots = [None] * 64

    def __len__(self):
        return self._count

    def __iter__(self):
        return iter([self._slots[(self._head + i) % len(self._slots)] for i in range(self._count)])

    cdef int _grow(self) except -1:
        self._slots = list(self) + [None] * max(64, self._count)
        self._head = 0
        return 0

    cdef int append(self, Transaction transaction) except -1:
        if self._count == len(self._slots):
            self._grow()
        self._slots[(self._head + self._count) % len(self._slots)] = transaction
        self._count += 1
        return 0

    cdef int prepend(self, Transaction transaction) except -1:
        if self._count == len(self._slots):
            self._grow()
        self._head = (self._head + len(self._slots) - 1) % len(self._slots)
        self._slots[self._head] = transaction
        self._count += 1
        return 0

    cdef Transaction first(self):
        return <Transaction> self._slots[self._head]

    cdef int remove(self, Transaction transaction) except -1:
        """Remove it, which is nearly always the first, and close the gap if not."""
        cdef Py_ssize_t size = len(self._slots)
        cdef Py_ssize_t place = 0
        while self._slots[(self._head + place) % size] is not transaction:
            place += 1
            assert place < self._count
        while place:
            self._slots[(self._head + place) % size] = self._slots[(self._head + place - 1) % size]
            place -= 1
        self._slots[self._head] = None
        self._head = (self._head + 1) % size
        self._count -= 1
        return 0


@cython.final
cdef class Client(Endpoint):
    """A local connection: takes one line, waits for its reply, writes it, takes the next."""

    cdef readonly Exchange exchange
    cdef readonly Buffer buffer
    cdef readonly Transaction transaction
    cdef readonly Buffer unsent
    cdef readonly bint eof, closed
    cdef public bint last
    cdef readonly int mask

    def __init__(self, Exchange exchange, port):
        self.exchange = exchange
        self._attach(port)
        self.mask = C_READ
        exchange.poller._add(self.fd, C_READ, RANK_CLIENT, self)

    cdef int ready(self, int mask) except -1:
        if self.closed:
            return 0
        if mask & C_WRITE and self.unsent is not None:
            self._flush()
            if self.closed:
                return 0
        if mask & C_READ and self.mask & C_READ:
            self._receive()
        elif mask & C_HANGUP:
            self.hang_up()
        return 0

    def resume(self):
        """Take the next line, if the last one was answered meanwhile."""
        if not self.closed and self.transaction is None and self.unsent is None:
            self._next_line()

    cdef int reply(self, const char *data, Py_ssize_t size, Link donor) except -1:
        """Send the reply to the transaction, which has ended; `donor` has it in its buffer."""
        cdef Exchange exchange = self.exchange
        cdef Py_ssize_t sent
        self.transaction = None
        sent = self._send_from(data, size)
        if sent == FAILED:
            return self.hang_up()
        if sent == size:
            return self._written()
        if donor is not None:
            self.unsent = donor.buffer
            donor.buffer = Buffer.__new__(Buffer)
            self.unsent.skip(sent)
        else:
            self.unsent = Buffer.__new__(Buffer)
            self.unsent.put(data + sent, size - sent)
        exchange.held += size - sent
        exchange.unread[self] = exchange.poller.now
        exchange._arm()
        return self._watch(self.mask | C_WRITE)

    cpdef int refuse(self) except -1:
        """Answer `con_lost` in place of what was kept of a line, and close."""
        self._drop_buffer()
        self.last = True
        self._watch(self.mask & ~C_READ)
        if self.transaction is None and self.unsent is None:
            self.exchange.requests += 1
            self.exchange.con_lost += 1
            self.reply(b"con_lost\n", 9, None)
        return 0

    cpdef int hang_up(self) except -1:
        """Close after the other side has gone.

        Its request goes on, unless it still waits for a link and `drop_abandoned` is set.
        """
        cdef Transaction transaction = self.transaction
        cdef Exchange exchange = self.exchange
        self.close()
        if transaction is not None:
            exchange.abandoned += 1
            if exchange.drop_abandoned and transaction.queued:
                exchange.finish(transaction, None, "the client has gone")
        return 0

    cpdef int close(self) except -1:
        """Close the connection; a reply for it is thrown away."""
        cdef Exchange exchange = self.exchange
        if self.closed:
            return 0
        self.closed = True
        if self.transaction is not None:
            self.transaction.client = None
            self.transaction = None
        if self.unsent is not None:
            exchange.held -= self.unsent.size()
            del exchange.unread[self]
            self.unsent = None
        self._drop_buffer()
        # What a port of Python closes may have copies.
        exchange.poller._discard(self.fd, self.native < 0)
        self.port.close()
        self.native = -1
        return exchange._client_left(self)

    cdef int _receive(self) except -1:
        cdef Exchange exchange = self.exchange
        cdef Py_ssize_t got = self._receive_into(received)
        cdef Py_ssize_t end
        cdef char *found
        cdef bytes line
        if got == FAILED:
            self.hang_up()
        elif got == AGAIN:
            pass
        elif not got:
            self._end_of_file()
        elif self.transaction is not None or self.unsent is not None:
            self._keep_early(received, got)
        elif self.buffer is not None:
            self._keep(received, got)
            self._next_line()
        else:
            found = <char *> memchr(received, c'\n', got)
            end = found + 1 - received if found != NULL else 0
            if not end or end - 1 > exchange.max_request:
                self._keep(received, got)
                self._next_line()
            else:
                line = PyBytes_FromStringAndSize(received, end)
                if end < got:
                    self._keep_early(received + end, got - end)
                if not self.last:
                    exchange._accept(self, line)
        return 0

    cdef int _keep(self, const char *data, Py_ssize_t size) except -1:
        cdef Exchange exchange = self.exchange
        if self.last:
            return 0
        if exchange.held + size > exchange.max_buffered:
            exchange.policy.trouble("max_buffered", size)
            return self.refuse()
        if self.buffer is None:
            self.buffer = Buffer.__new__(Buffer)
        self.buffer.put(data, size)
        exchange.held += size
        return 0

    cdef int _keep_early(self, const char *data, Py_ssize_t size) except -1:
        """Keep what was sent before the reply; when that is much, read no more for now."""
        self._keep(data, size)
        if self.buffer is not None and self.buffer.size() >= self.exchange.max_early:
            self._watch(self.mask & ~C_READ)
        return 0

    cdef int _drop_buffer(self) except -1:
        if self.buffer is not None:
            self.exchange.held -= self.buffer.size()
            self.exchange.unfinished.pop(self, None)
            self.buffer = None
        return 0

    cdef int _next_line(self) except -1:
        """Take the next line off the buffer and submit it, or go on reading."""
        cdef Exchange exchange = self.exchange
        cdef Buffer buffer = self.buffer
        cdef Py_ssize_t end
        cdef bytes line
        if self.last or self.closed:
            return 0
        end = 0 if buffer is None else buffer.line()
        if buffer is not None and (end - 1 if end else buffer.size()) > exchange.max_request:
            exchange.policy.trouble("max_request", buffer.size())
            self.refuse()
        elif buffer is not None and end:
            line = PyBytes_FromStringAndSize(buffer.first(), end)
            buffer.skip(end)
            exchange.held -= end
            exchange.unfinished.pop(self, None)
            if not buffer.size():
                self.buffer = None
            if self.eof or buffer.size() >= exchange.max_early:
                self._watch(self.mask & ~C_READ)
            else:
                self._watch(self.mask | C_READ)
            exchange._accept(self, line)
        elif self.eof:
            if buffer is not None:
                exchange.policy.trouble("cut_line", buffer.size())
            self.close()
        else:
            self._watch(self.mask | C_READ)
            if buffer is not None and self not in exchange.unfinished:
                exchange.unfinished[self] = exchange.poller.now
                exchange._arm()
        return 0

    cdef int _end_of_file(self) except -1:
        self.eof = True
        if self.transaction is None and self.unsent is None:
            self._next_line()
        elif self.port.gone():
            self.hang_up()
        else:
            self._watch(self.mask & ~C_READ)
        return 0

    cdef int _flush(self) except -1:
        cdef Exchange exchange = self.exchange
        cdef Py_ssize_t sent = self._send_from(self.unsent.first(), self.unsent.size())
        if sent == FAILED:
            return self.hang_up()
        if not sent:
            return 0
        exchange.held -= sent
        del exchange.unread[self]
        self.unsent.skip(sent)
        if self.unsent.size():
            exchange.unread[self] = exchange.poller.now
            return 0
        self.unsent = None
        self._watch(self.mask & ~C_WRITE)
        return self._written()

    cdef int _written(self) except -1:
        """Go on after a whole reply: take the next line in the client phase, read, or close."""
        if self.last or self.exchange.draining or (self.eof and self.buffer is None):
            return self.close()
        if self.buffer is not None:
            self.exchange.poller.resumed.append(self)
        return 0

    cdef int _watch(self, int mask) except -1:
        if mask != self.mask and not self.closed:
            self.mask = mask
            self.exchange.poller._modify(self.fd, mask)
        return 0


@cython.final
cdef class Link(Endpoint):
    """A connection to the peer.  It carries one request at a time; see the twin."""

    cdef readonly Exchange exchange
    cdef public object data
    cdef Buffer buffer
    cdef Py_ssize_t kept
    cdef bytes out
    cdef Py_ssize_t offset
    cdef bint ended
    cdef readonly bint cut
    cdef public bint last, late
    cdef readonly Transaction transaction
    cdef State _state
    cdef readonly Py_ssize_t answered
    cdef readonly double started, progress, idle_since

    def __init__(self, Exchange exchange, port, data):
        self.exchange = exchange
        self._attach(port)
        self.data = data
        self.buffer = Buffer.__new__(Buffer)
        self._state = S_PREPARING
        self.started = self.progress = self.idle_since = exchange.poller.now
        exchange.poller._add(self.fd, C_READ, RANK_PEER, self)

    @property
    def state(self):
        """PREPARING, IDLE, BUSY or CLOSED."""
        return STATES[<int> self._state]

    cdef int ready(self, int mask) except -1:
        if mask & C_WRITE and self.out is not None:
            self._flush()
        if mask & C_HANGUP:
            self.ended = True
        if mask & (C_READ | C_HANGUP) and self._state != S_CLOSED:
            self._receive()
        return 0

    cpdef int write(self, bytes data) except -1:
        """Send one line; what the kernel does not take now follows when it does.

        If the connection fails the link is lost.
        """
        cdef Py_ssize_t size = PyBytes_GET_SIZE(data)
        cdef Py_ssize_t sent = self._send_from(PyBytes_AS_STRING(data), size)
        if sent == FAILED:
            return self.exchange.lose(self, _reason("sending", self.error))
        if self.transaction is not None:
            self.transaction.sent += sent
        if sent < size:
            self.out = data
            self.offset = sent
            self.cut = sent > 0
            self.exchange.poller._modify(self.fd, C_READ | C_WRITE)
        return 0

    cdef int _flush(self) except -1:
        cdef Py_ssize_t size = PyBytes_GET_SIZE(self.out) - self.offset
        cdef Py_ssize_t sent = self._send_from(PyBytes_AS_STRING(self.out) + self.offset, size)
        if sent == FAILED:
            return self.exchange.lose(self, _reason("sending", self.error))
        if not sent:
            return 0
        self.progress = self.exchange.poller.now
        if self.transaction is not None:
            self.transaction.sent += sent
        if sent < size:
            self.offset += sent
            self.cut = True
        else:
            self.out = None
            self.cut = False
            self.exchange.poller._modify(self.fd, C_READ)
        return 0

    cdef int _receive(self) except -1:
        """Read until a read comes back short, so that a surplus behind the line is seen."""
        cdef Exchange exchange = self.exchange
        cdef Buffer buffer = self.buffer
        cdef Py_ssize_t got, end
        cdef int turn = 0
        while True:
            turn += 1
            buffer.reserve(C_RECEIVE)
            got = self._receive_into(buffer.data + buffer.end)
            if got == FAILED:
                return exchange.lose(self, _reason("receiving", self.error))
            if got == AGAIN:
                break
            if not got:
                return exchange.lose(self, "the peer closed the connection")
            if self._state == S_IDLE:
                return exchange.lose(self, "the peer spoke on an idle connection")
            self.progress = exchange.poller.now
            if buffer.size() + got - 1 > exchange.max_reply:
                exchange.policy.trouble("max_reply", buffer.size() + got)
                return exchange.lose(self, "the reply is longer than max_reply")
            buffer.end += got
            if (
                got < C_RECEIVE
                and not self.kept
                # It counts although it is not kept here: its client may not take it.
                and (self._state != S_BUSY or exchange.held + got <= exchange.max_buffered)
                and buffer.line() == got
            ):
                return self._line(got)
            exchange.held += got
            self.kept += got
            if exchange.held > exchange.max_buffered:
                exchange.policy.trouble("max_buffered", buffer.size())
                return exchange.lose(self, "max_buffered is used up")
            if got < C_RECEIVE:
                break
            if turn >= C_READS_A_TURN and buffer.data[buffer.end - 1] != c'\n':
                return 0
        end = buffer.line()
        if not end:
            return 0
        if end < buffer.size():
            return exchange.lose(self, "the peer sent more than one line")
        exchange.held -= self.kept
        self.kept = 0
        return self._line(end)

    cdef int _line(self, Py_ssize_t size) except -1:
        """Hand on the line that is in the buffer, and nothing else."""
        cdef Exchange exchange = self.exchange
        cdef Buffer buffer = self.buffer
        cdef Transaction transaction
        cdef bytes line
        if self.out is not None:
            return exchange.lose(self, "the peer answered before the request was written")
        transaction = self.transaction
        if (
            self._state == S_BUSY
            and transaction.plan is None
            and not (exchange.sealed and size >= 4 and buffer.first()[:4] == b"enc:")
        ):
            return exchange._answer(self, buffer.first(), size, self, False)
        line = PyBytes_FromStringAndSize(buffer.first(), size)
        buffer.skip(size)
        if self._state == S_PREPARING:
            exchange.policy.heard(self, line)
        else:
            exchange.policy.answered(self, transaction, line)
        return 0


@cython.final
cdef class Listener(Handler):
    """A listening Unix socket, whose clients go to the exchange.  `sock` is non-blocking."""

    cdef readonly Exchange exchange
    cdef readonly object sock
    cdef readonly bint closed

    def __init__(self, Exchange exchange, sock):
        self.exchange = exchange
        self.sock = sock
        self.fd = sock.fileno()
        exchange.poller._add(
            self.fd, C_READ if exchange.accepting else 0, RANK_LISTENER, self
        )

    cdef int ready(self, int mask) except -1:
        cdef Exchange exchange = self.exchange
        cdef Port port
        cdef int fd, turn
        for turn in range(C_ACCEPTS_A_TURN):
            if self.closed:
                return 0
            if len(exchange.clients) >= exchange.max_clients:
                exchange.accept_clients(False)
                return 0
            fd = accept4(self.fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC)
            if fd < 0:
                if errno == ECONNABORTED or errno == EINTR:
                    continue
                if errno != EAGAIN:
                    self._pause(errno)
                return 0
            port = Port(fd)
            try:
                if exchange.admits is None or self._admit(fd):
                    exchange.add_client(port)
                else:
                    port.close()
            except OSError as error:
                port.close()
                self._pause(error.errno or 0)
                return 0
        return 0

    cpdef int close(self) except -1:
        """Stop accepting here; the socket itself is left open."""
        if not self.closed:
            self.closed = True
            self.exchange.poller._discard(self.fd, True)
        return 0

    cdef int _pause(self, int number) except -1:
        self.exchange.accept_clients(False)
        self.exchange.policy.trouble("accept", number)
        return 0

    cdef bint _admit(self, int fd) except -1:
        cdef ucred peer
        cdef unsigned int size = sizeof(peer)
        if getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &size) < 0:
            return False
        return self.exchange.admits(peer.uid, peer.gid)


cdef class Exchange:
    """Matches requests with links, for one host; see the twin."""

    cdef readonly Poller poller
    cdef readonly object policy

    cdef public Py_ssize_t max_connections, max_dialling, max_queue, max_clients
    cdef public Py_ssize_t max_request, max_reply, max_early, max_buffered
    cdef public double queue_timeout, reply_timeout, transaction_timeout, client_timeout
    cdef public bint drop_abandoned, sealed, empty_is_request
    cdef tuple _special
    cdef public object admits

    cdef public double dial_at
    cdef public bint refusing, recovering, draining, timed, accepting

    cdef readonly dict clients, links, unread, unfinished
    cdef readonly list listeners, idle
    cdef readonly Queue queue, background

    cdef readonly Py_ssize_t attempts, usable, outstanding
    cdef public Py_ssize_t held
    cdef readonly double asked
    cdef bint _matching

    cdef public Py_ssize_t requests, con_lost
    cdef readonly Py_ssize_t accepted, replies, abandoned
    cdef uint64_t _latency[C_BUCKETS]

    def __init__(self, Poller poller, policy):
        self.poller = poller
        self.policy = policy

        self.max_connections = 10
        self.max_dialling = 3
        self.max_queue = 10000
        self.max_clients = 1 << 30
        self.max_request = 8 << 20
        self.max_reply = 64 << 20
        self.max_early = 64 << 10
        self.max_buffered = 256 << 20
        self.queue_timeout = 60.0
        self.reply_timeout = 130.0
        self.transaction_timeout = 600.0
        self.client_timeout = 60.0
        self._special = ()
        self.empty_is_request = True
        self.accepting = True

        self.clients = {}
        self.links = {}
        self.unread = {}
        self.unfinished = {}
        self.listeners = []
        self.idle = []
        self.queue = Queue()
        self.background = Queue()
        self.asked = -INFINITY

    @property
    def special(self):
        """Lines that begin with one of these are policy's."""
        return self._special

    @special.setter
    def special(self, prefixes):
        self._special = tuple(prefixes)

    @property
    def latency(self):
        """How many requests were answered, by bucket of their latency."""
        return [self._latency[i] for i in range(C_BUCKETS)]

    # -- clients ---------------------------------------------------------------------------------

    def listen(self, sock):
        """Accept clients from `sock`, a non-blocking listening Unix socket."""
        listener = Listener(self, sock)
        self.listeners.append(listener)
        return listener

    cpdef int accept_clients(self, bint accepting) except -1:
        """Go on accepting, or leave new clients in the kernel's backlog."""
        cdef Listener listener
        self.accepting = accepting
        for listener in self.listeners:
            if not listener.closed:
                self.poller._modify(listener.fd, C_READ if accepting else 0)
        return 0

    cpdef Client add_client(self, port):
        """Serve a client on `port`, which the exchange closes."""
        client = Client(self, port)
        self.clients[client] = None
        self.accepted += 1
        return client

    cdef int _client_left(self, Client client) except -1:
        del self.clients[client]
        if not self.accepting and len(self.clients) == self.max_clients - 1:
            self.accept_clients(True)
        return self._maybe_drained()

    # -- requests --------------------------------------------------------------------------------

    def accept(self, Client client, bytes line):
        """Make a transaction of a client's line (with its LF), and see to it."""
        self._accept(client, line)

    cdef int _accept(self, Client client, bytes line) except -1:
        cdef Transaction transaction = Transaction.__new__(Transaction)
        transaction.line = line
        transaction.client = client
        client.transaction = transaction
        return self._take(transaction)

    def submit(self, bytes line, callback, bint background=False):
        """Make a transaction of `line` (with its LF) that ends with `callback(transaction)`.

        The callback is never called from here, but in a later client phase.  A `background` one
        gets a link only when no other request waits.
        """
        transaction = Transaction(line, None, callback, background)
        self._take(transaction)
        return transaction

    cdef int _take(self, Transaction transaction) except -1:
        cdef bytes line = transaction.line
        cdef Py_ssize_t size = PyBytes_GET_SIZE(line)
        self.requests += 1
        self.outstanding += 1
        self.held += size
        transaction.since = self.poller.now
        if self.held > self.max_buffered:
            self.policy.trouble("max_buffered", size)
            if transaction.client is not None:
                transaction.client.last = True
            self.finish(transaction, None, "max_buffered is used up")
        elif size == 1 and not self.empty_is_request:
            self.finish(transaction, None, "the request is empty")
        elif self._special and line.startswith(self._special):
            self.policy.special(transaction)
        else:
            self._enqueue(transaction)
        return 0

    def enqueue(self, Transaction transaction):
        """Give a new transaction to an idle link, or let it wait for one, or fail it at once."""
        self._enqueue(transaction)

    cdef int _enqueue(self, Transaction transaction) except -1:
        cdef Py_ssize_t waiting
        self.asked = self.poller.now
        if self.idle and not self._matching and transaction.client is not None:
            return self._give(<Link> self.idle.pop(), transaction)
        waiting = self.queue._count + self.background._count
        if waiting >= self.max_queue + len(self.idle):
            self.policy.trouble("max_queue", waiting)
            self.finish(transaction, None, "max_queue requests are waiting")
        elif not self.usable and (
            self.refusing or (not self.attempts and self.poller.now < self.dial_at)
        ):
            self.finish(transaction, None, "the host is down")
        else:
            transaction.queued = True
            self._queue_of(transaction).append(transaction)
            self._arm()
            self._match_soon()
        return 0

    cdef inline Queue _queue_of(self, Transaction transaction):
        return self.background if transaction.background else self.queue

    def answer(self, Link link, bytes reply, bint keep=False):
        """End a busy link's transaction with `reply` (with its LF); the link takes the next one.

        With `keep` it goes back into policy's hands instead, as if it were being prepared.
        """
        self._answer(link, PyBytes_AS_STRING(reply), PyBytes_GET_SIZE(reply), None, keep)

    cdef int _answer(
        self, Link link, const char *data, Py_ssize_t size, Link donor, bint keep
    ) except -1:
        """`donor` is the link if `data` is in its buffer, which is empty afterwards."""
        cdef Transaction transaction = link.transaction
        cdef Buffer buffer
        link.transaction = None
        link.answered += 1
        self.replies += 1
        self._latency[_bucket(<uint64_t> ((self.poller.now - transaction.since) * 1e6))] += 1
        self._finish(transaction, data, size, donor, None)
        if donor is not None:
            buffer = donor.buffer
            buffer.skip(buffer.size())
        if self.recovering:
            self.recovering = False
            self.policy.recovered()
        if link._state != S_BUSY:
            return 0
        if keep:
            link._state = S_PREPARING
            self.usable -= 1
            self.attempts += 1
            return 0
        return self._next(link)

    def finish(self, Transaction transaction, reply, lost):
        """End a transaction: with `reply` (a line with its LF), or, if that is None, as `lost`.

        This is the only place where one ends.  It must not be held by a link.
        """
        cdef bytes line
        if reply is None:
            self._finish(transaction, NULL, 0, None, lost)
        else:
            line = reply
            self._finish(transaction, PyBytes_AS_STRING(line), PyBytes_GET_SIZE(line), None, None)

    cdef int _finish(
        self, Transaction transaction, const char *data, Py_ssize_t size, Link donor, object lost
    ) except -1:
        cdef Client client
        assert not transaction.done, "a transaction ends only once"
        transaction.done = True
        if transaction.queued:
            transaction.queued = False
            self._queue_of(transaction).remove(transaction)
        self.outstanding -= 1
        self.held -= PyBytes_GET_SIZE(transaction.line)
        if data == NULL:
            self.con_lost += 1
            transaction.lost = lost
        client = transaction.client
        if client is not None:
            if data == NULL:
                client.reply(b"con_lost\n", 9, None)
            else:
                client.reply(data, size, donor)
        elif transaction.callback is not None:
            if data != NULL:
                transaction.reply = PyBytes_FromStringAndSize(data, size - 1)
            self.poller.resumed.append(transaction)
        if self.draining:
            self._maybe_drained()
        return 0

    def fail_queue(self, lost):
        """End everything that waits for a link; return how many requests that were."""
        cdef list failed = list(self.queue) + list(self.background)
        for transaction in failed:
            self.finish(transaction, None, lost)
        return len(failed)

    # -- links -----------------------------------------------------------------------------------

    def want(self):
        """Ask for one more link, where requests wait that no idle one takes, within the limits."""
        self._want()

    cdef inline int _want(self) except -1:
        if (
            self.attempts + self.usable < self.max_connections
            and self.attempts < self.max_dialling
            and self.attempts + len(self.idle) < self.queue._count + self.background._count
            and self.poller.now >= self.dial_at
        ):
            self.policy.dial()
        return 0

    def dialling(self):
        """Count an attempt to open a link, until `dial_failed`, `release`, or the link's loss."""
        self.attempts += 1

    def dial_failed(self):
        """Count an attempt as ended without a link."""
        self.attempts -= 1

    def add_link(self, port, data=None):
        """Take over a connection that an attempt has opened; policy leads the dialogue on it."""
        link = Link(self, port, data)
        self.links[link] = None
        return link

    def release(self, Link link):
        """The dialogue is over: the link takes a request, or becomes idle."""
        assert link._state == S_PREPARING
        self.attempts -= 1
        self.usable += 1
        self._next(link)
        self._arm()
        self._want()

    cpdef int lose(self, Link link, reason, bint retry=True) except -1:
        """Close a link that failed.

        A request of which no byte was handed to the kernel waits again, before all others, unless
        `retry` is False; one that was written, in part or whole, ends as `con_lost`.  A line that
        was begun and is not whole must not look whole to the peer: then the connection is reset.
        """
        cdef State state = link._state
        cdef Transaction transaction
        if state == S_CLOSED:
            return 0
        transaction = link.transaction
        self._close(link, link.cut)
        if transaction is not None:
            if transaction.sent or not retry:
                self.finish(transaction, None, reason)
            else:
                transaction.queued = True
                self._queue_of(transaction).prepend(transaction)
        self.policy.lost(link, reason, STATES[<int> state], transaction)
        return self._match_soon()

    def decline(self, Link link, reason):
        """End a busy link's transaction, of which nothing was written, as lost; keep the link."""
        cdef Transaction transaction = link.transaction
        assert transaction is not None
        link.transaction = None
        self.finish(transaction, None, reason)
        self._rest(link)
        self._match_soon()

    def dismiss(self, Link link, bytes farewell):
        """Close an idle link in good order; `farewell` is written without waiting."""
        assert link._state == S_IDLE
        if farewell:
            link._send_from(PyBytes_AS_STRING(farewell), PyBytes_GET_SIZE(farewell))
        self._close(link, False)

    cdef int _close(self, Link link, bint reset) except -1:
        if link._state == S_PREPARING:
            self.attempts -= 1
        else:
            self.usable -= 1
            if link._state == S_IDLE:
                self.idle.remove(link)
        link._state = S_CLOSED
        link.transaction = None
        link.out = None
        self.held -= link.kept
        link.kept = 0
        link.buffer.clear()
        del self.links[link]
        self.poller._discard(link.fd, link.native < 0)
        if reset:
            link.port.reset()
        else:
            link.port.close()
        link.native = -1
        return 0

    cdef int _give(self, Link link, Transaction transaction) except -1:
        link._state = S_BUSY
        link.transaction = transaction
        link.started = link.progress = self.poller.now
        if transaction.plan is None:
            return link.write(transaction.line)
        self.policy.begin(link, transaction)
        return 0

    cdef int _rest(self, Link link) except -1:
        link._state = S_IDLE
        link.idle_since = self.poller.now
        self.idle.append(link)
        return 0

    cdef int _next(self, Link link) except -1:
        """Give a link the next request that waits, or put it on the idle stack, or end it."""
        cdef Transaction transaction = None
        if not link.last and not link.ended:
            transaction = self._dequeue()
        if transaction is not None:
            return self._give(link, transaction)
        self._rest(link)
        if link.ended:
            return self.lose(link, "the peer closed the connection")
        if link.last:
            self.policy.retire(link)
            self._want()
        return 0

    cdef Transaction _dequeue(self):
        cdef Queue queue
        cdef Transaction transaction
        cdef Client client
        while self.queue._count or self.background._count:
            queue = self.queue if self.queue._count else self.background
            transaction = queue.first()
            client = transaction.client
            if client is not None and not client.mask & C_READ and client.port.gone():
                client.hang_up()
                if transaction.done:
                    continue
            queue.remove(transaction)
            transaction.queued = False
            return transaction
        return None

    cdef int _match_soon(self) except -1:
        """Have `resume` give idle links what waits; without any, ask for one.

        Not at once: an idle link may be ready in this very pass, because it was closed or holds a
        stray line, and be handled only after this.
        """
        if not self.idle:
            return self._want()
        if (self.queue._count or self.background._count) and not self._matching:
            self._matching = True
            self.poller.resumed.append(self)
        return 0

    def resume(self):
        """Give idle links what waits.  A link that fails meanwhile is seen by the same loop."""
        cdef Transaction transaction
        self._matching = False
        while self.idle:
            transaction = self._dequeue()
            if transaction is None:
                break
            self._give(<Link> self.idle.pop(), transaction)
        self._want()

    # -- time ------------------------------------------------------------------------------------

    def overdue(self):
        """Return what has passed its deadline, and when to ask again; nothing is changed.

        That is: requests that have waited too long; clients whose line, or whose reading of a
        reply, stands still; busy links, each with the name of the timeout that passed; and a time,
        infinity while there is nothing that could pass a deadline.
        """
        cdef double now = self.poller.now
        cdef double later, deadline, silent, total
        cdef Transaction transaction
        cdef Link link
        requests = []
        clients = []
        links = []
        if not (
            self.usable
            or self.queue._count
            or self.background._count
            or self.unfinished
            or self.unread
        ):
            return requests, clients, links, INFINITY
        # What begins to wait after this moment cannot be due before the shortest timeout.
        later = now + min(
            self.queue_timeout, self.client_timeout, self.reply_timeout, self.transaction_timeout
        )
        for queue in (self.queue, self.background):
            for transaction in queue:
                deadline = transaction.since + self.queue_timeout
                if deadline > now:
                    later = min(later, deadline)
                    break
                requests.append(transaction)
        for waiting in (self.unfinished, self.unread):
            for client, since in waiting.items():
                deadline = since + self.client_timeout
                if deadline > now:
                    later = min(later, deadline)
                    break
                clients.append(client)
        for link in self.links:
            if link._state == S_BUSY:
                silent = link.progress + self.reply_timeout
                total = link.started + self.transaction_timeout
                if silent <= now:
                    links.append((link, "reply_timeout"))
                elif total <= now:
                    links.append((link, "transaction_timeout"))
                else:
                    later = min(later, silent, total)
        return requests, clients, links, later

    cdef inline int _arm(self) except -1:
        if not self.timed:
            self.timed = True
            self.policy.arm()
        return 0

    # -- the end ---------------------------------------------------------------------------------

    def drain(self):
        """Take no new clients and no new lines; clients that wait for nothing are closed."""
        cdef Client client
        self.draining = True
        for listener in self.listeners:
            listener.close()
        for client in list(self.clients):
            if client.transaction is None and client.unsent is None:
                client.close()
        self._maybe_drained()

    cdef int _maybe_drained(self) except -1:
        if self.draining and not self.clients and not self.outstanding:
            self.policy.drained()
        return 0
