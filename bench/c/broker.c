/* The practical limit: the broker's steady path and nothing else, in C.
 *
 *     broker SOCKET PORT [CONNECTIONS]
 *
 * One line from a client of the Unix socket, one line back from the service on
 * the loopback port.  Up to 10 connections to it, opened for work only, one
 * request at a time on each, the last one used first; what finds none waits in
 * one queue.  A client's next line is taken when the reply to the
 * last one is on its way; a reply is handed on when it is whole.  One thread,
 * level-triggered epoll, one fixed receive buffer, no call that is not needed.
 *
 * Left out is what a daemon needs beside it: timeouts, limits, retries,
 * statistics, a log.  Where it fails it answers `con_lost` and closes.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

enum {
    MAX_DIALLING = 3,
    MAX_EARLY = 64 << 10,       /* bytes kept from a client that waits for its reply */
    ACCEPTS = 64,               /* in one pass */
    EVENTS = 256,
    RECEIVE = 256 << 10,
};

struct buffer {
    char *data;
    size_t start, end, room;
};

enum kind { LISTENER, CLIENT, LINK };

/* Both ends of a request begin with this, so that an event can find its kind. */
struct end {
    enum kind kind;
    int fd;                     /* -1: closed; freed at the end of the pass */
    uint32_t watched;           /* what epoll reports of it; 0: not in epoll */
    struct end *next_dead;
};

struct client {
    struct end end;
    bool waiting;               /* its line at the head of `in` is queued or on a link */
    bool finished;              /* end of file was seen: close after the reply */
    size_t line;                /* bytes of that line still in `in` */
    struct buffer in, out;
    struct client *next;        /* in the queue */
};

struct link {
    struct end end;
    enum { CONNECTING, IDLE, BUSY } state;
    struct client *client;      /* whose request it has */
    size_t unsent;              /* bytes of the request that the kernel did not take yet */
    struct buffer reply;
    struct link *next;          /* in the idle stack */
};

static int epoll;
static struct end listener = {.kind = LISTENER};
static struct sockaddr_in service;
static struct link *idle;
static int links, dialling, max_links = 10;
static struct client *queue, **queue_end = &queue;
static size_t queued;
static struct end *dead;
static char received[RECEIVE];

static void client_next(struct client *c);
static void open_links(void);

static void fail(const char *what)
{
    perror(what);
    exit(1);
}

/* ---- buffers: data[start..end) is what is in it ---- */

static char *buffer_reserve(struct buffer *b, size_t size)
{
    if (b->start == b->end)
        b->start = b->end = 0;
    if (b->room - b->end < size && b->start) {
        memmove(b->data, b->data + b->start, b->end - b->start);
        b->end -= b->start;
        b->start = 0;
    }
    if (b->room - b->end < size) {
        while (b->room - b->end < size)
            b->room = b->room ? 2 * b->room : 4096;
        b->data = realloc(b->data, b->room);
        if (!b->data)
            fail("realloc");
    }
    return b->data + b->end;
}

static void buffer_append(struct buffer *b, const char *data, size_t size)
{
    memcpy(buffer_reserve(b, size), data, size);
    b->end += size;
}

static size_t buffer_size(const struct buffer *b)
{
    return b->end - b->start;
}

/* ---- descriptors ---- */

static void watch(struct end *e, uint32_t events)
{
    if (e->watched == events)
        return;
    int operation = !e->watched ? EPOLL_CTL_ADD : events ? EPOLL_CTL_MOD : EPOLL_CTL_DEL;
    struct epoll_event event = {.events = events, .data.ptr = e};
    if (epoll_ctl(epoll, operation, e->fd, &event))
        fail("epoll_ctl");
    e->watched = events;
}

static void end_close(struct end *e)
{
    close(e->fd);
    e->fd = -1;
    e->watched = 0;
}

/* Later events of this pass may still point to it. */
static void end_free(struct end *e)
{
    e->next_dead = dead;
    dead = e;
}

static void free_dead(void)
{
    while (dead) {
        struct end *e = dead;
        dead = e->next_dead;
        if (e->kind == CLIENT) {
            free(((struct client *)e)->in.data);
            free(((struct client *)e)->out.data);
        } else {
            free(((struct link *)e)->reply.data);
        }
        free(e);
    }
}

/* How many bytes the kernel took; -1: the other side is gone. */
static ssize_t try_send(int fd, const char *data, size_t size)
{
    ssize_t n = send(fd, data, size, MSG_NOSIGNAL | MSG_DONTWAIT);
    return n < 0 && errno == EAGAIN ? 0 : n;
}

/* ---- clients ---- */

static void client_close(struct client *c)
{
    if (c->end.fd >= 0)
        end_close(&c->end);
    if (!c->waiting)
        end_free(&c->end);
}

/* The reply is whole: in `b`, or where that is empty in `data`. */
static void client_reply(struct client *c, struct buffer *b, const char *data, size_t size)
{
    c->waiting = false;
    if (c->end.fd < 0) {
        end_free(&c->end);
        return;
    }
    ssize_t sent = try_send(c->end.fd, data, size);
    if (sent < 0) {
        client_close(c);
    } else if ((size_t)sent < size) {
        if (buffer_size(b)) {           /* take the whole buffer over instead of copying it */
            struct buffer spare = c->out;
            c->out = *b;
            *b = spare;
            c->out.start += (size_t)sent;
        } else {
            buffer_append(&c->out, data + sent, size - (size_t)sent);
        }
        watch(&c->end, EPOLLOUT);
    } else if (c->finished) {
        client_close(c);
    } else {
        watch(&c->end, EPOLLIN);
        if (buffer_size(&c->in))
            client_next(c);
    }
}

static void client_lost(struct client *c)
{
    struct buffer none = {0};
    c->finished = true;
    client_reply(c, &none, "con_lost\n", 9);
}

static void client_writable(struct client *c)
{
    ssize_t sent = try_send(c->end.fd, c->out.data + c->out.start, buffer_size(&c->out));
    if (sent < 0) {
        client_close(c);
        return;
    }
    c->out.start += (size_t)sent;
    if (buffer_size(&c->out))
        return;
    if (c->finished) {
        client_close(c);
        return;
    }
    watch(&c->end, EPOLLIN);
    if (buffer_size(&c->in))
        client_next(c);
}

static void link_give(struct link *l, struct client *c, const char *line, size_t size);

static void enqueue(struct client *c)
{
    c->next = NULL;
    *queue_end = c;
    queue_end = &c->next;
    queued++;
    open_links();
}

static struct client *dequeue(void)
{
    struct client *c = queue;
    queue = c->next;
    if (!queue)
        queue_end = &queue;
    queued--;
    return c;
}

static struct link *pop_idle(void)
{
    struct link *l = idle;
    if (l)
        idle = l->next;
    return l;
}

/* Takes the line at the head of what is kept, if it is whole. */
static void client_next(struct client *c)
{
    char *head = c->in.data + c->in.start;
    char *end = memchr(head, '\n', buffer_size(&c->in));
    if (!end)
        return;
    c->waiting = true;
    c->line = (size_t)(end - head) + 1;
    struct link *l = pop_idle();
    if (l)
        link_give(l, c, head, c->line);
    else
        enqueue(c);
}

static void client_ended(struct client *c)
{
    if (!c->waiting) {
        client_close(c);
        return;
    }
    c->finished = true;
    watch(&c->end, 0);          /* level-triggered, it would be reported for ever */
}

static void client_readable(struct client *c)
{
    ssize_t n = recv(c->end.fd, received, sizeof received, MSG_DONTWAIT);
    if (n <= 0) {
        if (n == 0 || errno != EAGAIN)
            client_ended(c);
        return;
    }
    size_t size = (size_t)n;
    struct link *l;
    if (!c->waiting && !buffer_size(&c->in) && memchr(received, '\n', size) == received + size - 1
        && (l = pop_idle())) {
        c->waiting = true;
        c->line = 0;
        link_give(l, c, received, size);
        return;
    }
    buffer_append(&c->in, received, size);
    if (!c->waiting)
        client_next(c);
    else if (buffer_size(&c->in) > MAX_EARLY)
        watch(&c->end, 0);
}

static void accept_clients(void)
{
    for (int i = 0; i < ACCEPTS; i++) {
        int fd = accept4(listener.fd, NULL, NULL, SOCK_CLOEXEC);
        if (fd < 0)
            return;
        struct client *c = calloc(1, sizeof *c);
        if (!c)
            fail("calloc");
        c->end.kind = CLIENT;
        c->end.fd = fd;
        watch(&c->end, EPOLLIN);
    }
}

/* ---- links ---- */

static void link_close(struct link *l)
{
    struct client *c = l->client;
    if (l->state == CONNECTING) {
        dialling--;
    } else if (l->state == IDLE) {
        struct link **at = &idle;
        while (*at != l)
            at = &(*at)->next;
        *at = l->next;
    }
    l->client = NULL;
    end_close(&l->end);
    end_free(&l->end);
    links--;
    if (c)
        client_lost(c);
    while (!links && queue)
        client_lost(dequeue());
}

/* The part of the request that was sent is dropped from where it is kept. */
static void request_sent(struct client *c, size_t sent)
{
    c->in.start += sent;
    c->line -= sent;
}

static void link_give(struct link *l, struct client *c, const char *line, size_t size)
{
    l->state = BUSY;
    l->client = c;
    ssize_t sent = try_send(l->end.fd, line, size);
    if (sent < 0) {
        link_close(l);
        return;
    }
    l->unsent = size - (size_t)sent;
    if (c->line) {
        request_sent(c, (size_t)sent);
    } else if (l->unsent) {
        buffer_append(&c->in, line + sent, l->unsent);
        c->line = l->unsent;
    }
    if (l->unsent)
        watch(&l->end, EPOLLIN | EPOLLOUT);
}

static void link_writable(struct link *l)
{
    if (l->state == CONNECTING) {
        int error = 0;
        socklen_t size = sizeof error;
        getsockopt(l->end.fd, SOL_SOCKET, SO_ERROR, &error, &size);
        if (error) {
            link_close(l);
            return;
        }
        dialling--;
        watch(&l->end, EPOLLIN);
        if (queue) {
            struct client *c = dequeue();
            link_give(l, c, c->in.data + c->in.start, c->line);
        } else {
            l->state = IDLE;
            l->next = idle;
            idle = l;
        }
        open_links();
        return;
    }
    struct client *c = l->client;
    ssize_t sent = try_send(l->end.fd, c->in.data + c->in.start, l->unsent);
    if (sent < 0) {
        link_close(l);
        return;
    }
    request_sent(c, (size_t)sent);
    l->unsent -= (size_t)sent;
    if (!l->unsent)
        watch(&l->end, EPOLLIN);
}

static void link_readable(struct link *l)
{
    struct buffer *b = &l->reply;
    bool begun = buffer_size(b) > 0;
    char *into = begun ? buffer_reserve(b, RECEIVE) : received;
    ssize_t n = recv(l->end.fd, into, RECEIVE, MSG_DONTWAIT);
    if (n < 0 && errno == EAGAIN)
        return;
    char *end = n > 0 ? memchr(into, '\n', (size_t)n) : NULL;
    if (n <= 0 || l->state != BUSY || l->unsent || (end && end != into + n - 1)) {
        link_close(l);
        return;
    }
    if (begun)
        b->end += (size_t)n;
    if (!end) {
        if (!begun)
            buffer_append(b, received, (size_t)n);
        return;
    }

    struct client *c = l->client;
    l->client = NULL;
    client_reply(c, b, begun ? b->data + b->start : received, begun ? buffer_size(b) : (size_t)n);
    b->start = b->end = 0;
    if (queue) {
        struct client *next = dequeue();
        link_give(l, next, next->in.data + next->in.start, next->line);
    } else {
        l->state = IDLE;
        l->next = idle;
        idle = l;
    }
}

static void open_links(void)
{
    while (links < max_links && dialling < MAX_DIALLING && (size_t)dialling < queued) {
        struct link *l = calloc(1, sizeof *l);
        int yes = 1;
        if (!l)
            fail("calloc");
        l->end.kind = LINK;
        l->end.fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
        if (l->end.fd < 0)
            fail("socket");
        setsockopt(l->end.fd, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes);
        connect(l->end.fd, (struct sockaddr *)&service, sizeof service);
        watch(&l->end, EPOLLOUT);       /* reports a refusal too */
        links++;
        dialling++;
    }
}

/* ---- the loop ---- */

static void link_event(struct link *l, uint32_t events)
{
    if (events & (EPOLLOUT | EPOLLERR) && (l->state == CONNECTING || l->unsent))
        link_writable(l);
    if (l->end.fd >= 0 && l->state != CONNECTING && events & (EPOLLIN | EPOLLHUP | EPOLLERR))
        link_readable(l);
}

static void client_event(struct client *c, uint32_t events)
{
    if (events & EPOLLIN)
        client_readable(c);
    else if (events & EPOLLOUT)
        client_writable(c);
    else
        client_ended(c);
}

int main(int argc, char **argv)
{
    if (argc < 3 || argc > 4) {
        fprintf(stderr, "usage: broker SOCKET PORT [CONNECTIONS]\n");
        return 2;
    }
    if (argc == 4)
        max_links = atoi(argv[3]);
    struct rlimit descriptors;
    getrlimit(RLIMIT_NOFILE, &descriptors);
    descriptors.rlim_cur = descriptors.rlim_max;
    setrlimit(RLIMIT_NOFILE, &descriptors);

    service.sin_family = AF_INET;
    service.sin_port = htons((uint16_t)atoi(argv[2]));
    service.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    struct sockaddr_un path = {.sun_family = AF_UNIX};
    if (strlen(argv[1]) >= sizeof path.sun_path) {
        fprintf(stderr, "broker: the path of the socket is too long\n");
        return 2;
    }
    strcpy(path.sun_path, argv[1]);
    listener.fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (listener.fd < 0 || bind(listener.fd, (struct sockaddr *)&path, sizeof path)
        || listen(listener.fd, 4096))
        fail(argv[1]);
    epoll = epoll_create1(EPOLL_CLOEXEC);
    if (epoll < 0)
        fail("epoll_create1");
    watch(&listener, EPOLLIN);

    for (;;) {
        struct epoll_event events[EVENTS];
        int n = epoll_wait(epoll, events, EVENTS, -1);
        if (n < 0 && errno != EINTR)
            fail("epoll_wait");
        bool accepting = false;
        for (int i = 0; i < n; i++) {
            struct end *e = events[i].data.ptr;
            if (e->kind == LINK && e->fd >= 0)
                link_event((struct link *)e, events[i].events);
        }
        for (int i = 0; i < n; i++) {
            struct end *e = events[i].data.ptr;
            if (e->kind == CLIENT && e->fd >= 0)
                client_event((struct client *)e, events[i].events);
            else if (e->kind == LISTENER)
                accepting = true;
        }
        if (accepting)
            accept_clients();
        free_dead();
    }
}
