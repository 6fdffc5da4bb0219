/* The service behind the broker: answers each request with what it asks for.
 *
 *     peer [-y] [-P]
 *
 * Listens on a loopback port of the system's choice, prints `port <n>` and
 * serves until it is killed.  It never sleeps: a broker that wakes a sleeping
 * process pays for it, and that is not what is measured.  -y: give the
 * processor away when there is nothing to do (it is shared with the load
 * generator).  -P: speak PostgreSQL's protocol.
 *
 * More than one request at a time on a connection ends the program: a broker
 * that does that does other work than the one it is compared with.
 */
#include "common.h"
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/uio.h>

struct connection {
    int fd;
    bool started;                   /* PostgreSQL: the start-up message is behind us */
    bool answering;
    uint64_t due;                   /* when the reply may go out, 0 = now */
    size_t received, sent;
    struct reply reply;
    size_t line_size;               /* that `reply` is shaped for */
    const unsigned char *body;
    struct connection *next;        /* among those that wait for `due` */
    unsigned char in[MAX_REQUEST];
};

static int epoll;
static bool postgres;
static const unsigned char *pattern;
static struct connection *waiting, **waiting_end = &waiting;

static void send_all(int fd, const void *data, size_t size)
{
    if (send(fd, data, size, MSG_NOSIGNAL) != (ssize_t)size)
        die_errno("peer: send");
}

static void watch(struct connection *c, uint32_t events)
{
    struct epoll_event event = {.events = events, .data.ptr = c};
    if (epoll_ctl(epoll, EPOLL_CTL_MOD, c->fd, &event))
        die_errno("peer: epoll_ctl");
}

static void answer(struct connection *c)
{
    struct reply *r = &c->reply;
    size_t at = c->sent;
    struct iovec parts[3];
    int n = 0;
    if (at < r->head_size)
        parts[n++] = (struct iovec){r->head + at, r->head_size - at};
    at = at > r->head_size ? at - r->head_size : 0;
    if (at < r->body)
        parts[n++] = (struct iovec){(void *)(c->body + at), r->body - at};
    at = at > r->body ? at - r->body : 0;
    parts[n++] = (struct iovec){r->tail + at, r->tail_size - at};

    struct msghdr message = {.msg_iov = parts, .msg_iovlen = (size_t)n};
    ssize_t sent = sendmsg(c->fd, &message, MSG_NOSIGNAL | MSG_DONTWAIT);
    if (sent < 0 && errno != EAGAIN)
        return;                     /* the broker is gone; recv will tell */
    bool held_back = c->sent > 0;
    c->sent += sent > 0 ? (size_t)sent : 0;
    if (c->sent < r->total) {
        watch(c, EPOLLIN | EPOLLOUT);
        return;
    }
    if (held_back)
        watch(c, EPOLLIN);
    c->answering = false;
}

/* Bytes of the request at the head of the input, 0 if it is not whole yet. */
static size_t request_size(const struct connection *c)
{
    if (!postgres) {
        const unsigned char *end = memchr(c->in, '\n', c->received);
        return end ? (size_t)(end - c->in) + 1 : 0;
    }
    size_t type = c->started ? 1 : 0;
    if (c->received < type + 4)
        return 0;
    size_t size = type + get32(c->in + type);
    return c->received >= size ? size : 0;
}

static void start_postgres(struct connection *c)
{
    static const char hello[] =
        "R\0\0\0\10\0\0\0\0"
        "S\0\0\0\30server_version\0""15.0\0"
        "S\0\0\0\31client_encoding\0UTF8\0"
        "K\0\0\0\14\0\0\0\1\0\0\0\1"
        "Z\0\0\0\5I";
    send_all(c->fd, hello, sizeof hello - 1);
    c->started = true;
}

static void request(struct connection *c, size_t size)
{
    const unsigned char *text = c->in + (postgres ? 5 : 0);
    char *rest = NULL;
    if (size > DIGITS + 6 && text[DIGITS] == ' ')
        rest = (char *)text + DIGITS;
    else
        die("peer: not a request of the load generator (%zu bytes)", size);
    size_t line_size = strtoul(rest, &rest, 10);
    uint64_t delay = strtoul(rest, &rest, 10) * 1000;
    if (line_size < MIN_REPLY || line_size > MAX_REPLY)
        die("peer: a reply of %zu bytes cannot be made", line_size);
    if (line_size != c->line_size) {
        shape_reply(&c->reply, line_size, postgres);
        c->line_size = line_size;
    }
    memcpy(c->reply.head + c->reply.digits, text, DIGITS);
    c->body = pattern + reply_shift(text);
    c->sent = 0;
    c->answering = true;
    if (delay) {                    /* all delays are alike, so the list stays in order */
        c->due = now_ns() + delay;
        c->next = NULL;
        *waiting_end = c;
        waiting_end = &c->next;
    } else {
        answer(c);
    }
}

static void forget(struct connection *c)
{
    for (struct connection **at = &waiting; *at; at = &(*at)->next)
        if (*at == c) {
            *at = c->next;
            break;
        }
    for (waiting_end = &waiting; *waiting_end; waiting_end = &(*waiting_end)->next)
        ;
    close(c->fd);
    free(c);
}

static void readable(struct connection *c)
{
    ssize_t n = recv(c->fd, c->in + c->received, sizeof c->in - c->received, MSG_DONTWAIT);
    if (n < 0 && errno == EAGAIN)
        return;
    if (n <= 0) {
        forget(c);
        return;
    }
    if (c->answering)
        die("peer: a second request before the first was answered");
    c->received += (size_t)n;
    size_t size = request_size(c);
    if (!size) {
        if (c->received == sizeof c->in)
            die("peer: a request of more than %zu bytes", sizeof c->in);
        return;
    }
    if (size != c->received)
        die("peer: more than one request at a time");
    c->received = 0;
    if (postgres && !c->started)
        start_postgres(c);
    else if (postgres && c->in[0] == 'X')
        forget(c);
    else
        request(c, size);
}

static void accept_all(int listener)
{
    for (int fd; (fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC)) >= 0;) {
        int yes = 1;
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes);
        setsockopt(fd, IPPROTO_TCP, TCP_CONGESTION, "reno", 4);
        struct connection *c = calloc(1, sizeof *c);
        if (!c)
            die("peer: no memory");
        c->fd = fd;
        struct epoll_event event = {.events = EPOLLIN, .data.ptr = c};
        if (epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event))
            die_errno("peer: epoll_ctl");
    }
}

int main(int argc, char **argv)
{
    bool yield = false;
    for (int option; (option = getopt(argc, argv, "yP")) != -1;) {
        if (option == 'y')
            yield = true;
        else if (option == 'P')
            postgres = true;
        else
            return 2;
    }
    pattern = make_pattern();

    int listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof address;
    if (listener < 0 || bind(listener, (struct sockaddr *)&address, size) || listen(listener, 4096)
        || getsockname(listener, (struct sockaddr *)&address, &size))
        die_errno("peer: listen");
    epoll = epoll_create1(EPOLL_CLOEXEC);
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = NULL};
    if (epoll < 0 || epoll_ctl(epoll, EPOLL_CTL_ADD, listener, &event))
        die_errno("peer: epoll");
    printf("port %d\n", ntohs(address.sin_port));
    fflush(stdout);

    for (;;) {
        struct epoll_event events[256];
        int n = epoll_wait(epoll, events, 256, 0);
        for (int i = 0; i < n; i++) {
            struct connection *c = events[i].data.ptr;
            if (!c)
                accept_all(listener);
            else if (events[i].events & EPOLLOUT)
                answer(c);
            else
                readable(c);
        }
        while (waiting && waiting->due <= now_ns()) {
            struct connection *c = waiting;
            waiting = c->next;
            if (!waiting)
                waiting_end = &waiting;
            answer(c);
        }
        if (n == 0 && yield)
            sched_yield();
    }
}
