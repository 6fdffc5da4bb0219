/* The load: clients of a broker's Unix socket in a closed loop.
 *
 *     load -s SOCKET [-H hosts] [-c clients] [-n] [-i silent] [-q request size]
 *          [-r reply size] [-l delay in us] [-t seconds] [-w seconds] [-p pid]...
 *          [-g] [-y] [-P]
 *
 * Each of `clients` sends a request, takes the whole reply, compares it byte
 * for byte and sends the next; with -n on a new connection each time.  -H:
 * the sockets are SOCKET0 ... SOCKET<hosts - 1>, used in turns.  -i: so many
 * more are connected and say nothing.
 *
 * After -w seconds, and at least one reply for each client, all outstanding
 * replies are awaited.  Then comes the measured phase of -t seconds, again to
 * its last reply, and one line of JSON about it: requests, CPU time that the
 * processes given with -p used meanwhile, rate, latencies.  -g (gate): print
 * `ready` before the measured phase and begin it when a line comes in; keep
 * all connections after the result until the input ends.  So the calls of the
 * measured phase can be counted alone.
 *
 * It never sleeps (see peer.c).  -y: give the processor away when nothing is
 * ready.  -P: speak PostgreSQL's protocol.  A wrong byte or twenty seconds
 * without any reply end it with status 1.
 */
#include "common.h"
#include <dirent.h>
#include <sys/resource.h>
#include <sys/un.h>

enum { RECEIVE = 256 << 10, MAX_SAMPLES = 4 << 20, MAX_PIDS = 16 };
static const uint64_t STALLED = 20000000000u, SECOND = 1000000000u;

struct client {
    int fd;                     /* -1: not connected */
    const char *path;
    uint64_t asked;             /* when the outstanding request was begun, 0: none */
    uint32_t number;            /* of that request */
    size_t taken;               /* bytes of its reply */
    uint64_t replies, latency;  /* in this phase: how many, and their sum in ns */
};

static bool each_new, postgres;
static const unsigned char *pattern;
static struct reply reply;
static unsigned char request[MAX_REQUEST];
static size_t request_size, request_digits;
static int epoll;
static struct client *clients;
static size_t client_count = 1, outstanding, pid_count;
static long pids[MAX_PIDS];
static uint64_t replies, last_reply;
static uint32_t *samples, next_number;
static size_t sample_count;

/* ---- CPU time of the processes that are measured ---- */

struct cpu {
    double total, user, system;     /* seconds; `user` and `system` are sampled by the kernel */
};

static void read_text(const char *path, char *text, size_t room)
{
    FILE *file = fopen(path, "r");
    size_t n = file ? fread(text, 1, room - 1, file) : 0;
    if (file)
        fclose(file);
    text[n] = 0;
}

static void add_cpu(struct cpu *cpu, long pid)
{
    char path[300], text[1024];
    snprintf(path, sizeof path, "/proc/%ld/stat", pid);
    read_text(path, text, sizeof text);
    unsigned long user, system;
    char *after_name = strrchr(text, ')');
    if (!after_name || sscanf(after_name + 1, " %*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %lu %lu",
                              &user, &system) != 2)
        die("load: process %ld is not there", pid);
    double tick = 1.0 / (double)sysconf(_SC_CLK_TCK);
    cpu->user += (double)user * tick;
    cpu->system += (double)system * tick;

    double total = 0;
    snprintf(path, sizeof path, "/proc/%ld/task", pid);
    DIR *tasks = opendir(path);
    for (struct dirent *task; tasks && (task = readdir(tasks));) {
        unsigned long long ns;
        snprintf(path, sizeof path, "/proc/%ld/task/%s/schedstat", pid, task->d_name);
        if (task->d_name[0] == '.')
            continue;
        read_text(path, text, sizeof text);
        if (sscanf(text, "%llu", &ns) == 1)
            total += (double)ns / 1e9;
    }
    if (tasks)
        closedir(tasks);
    cpu->total += total > 0 ? total : (double)(user + system) * tick;
}

static struct cpu read_cpu(void)
{
    struct cpu cpu = {0};
    for (size_t i = 0; i < pid_count; i++)
        add_cpu(&cpu, pids[i]);
    return cpu;
}

/* ---- connections ---- */

static void receive_exactly(int fd, unsigned char *into, size_t size)
{
    if (recv(fd, into, size, MSG_WAITALL) != (ssize_t)size)
        die("load: the broker closed the connection while it was set up");
}

static void start_postgres(int fd)
{
    static const char hello[] = "\0\0\0\43\0\3\0\0user\0bench\0database\0bench\0";
    unsigned char head[5], body[1024];
    if (send(fd, hello, sizeof hello, MSG_NOSIGNAL) != sizeof hello)
        die_errno("load: send");
    do {
        receive_exactly(fd, head, sizeof head);
        size_t size = get32(head + 1) - 4;
        if (size > sizeof body)
            die("load: a message of %zu bytes at start-up", size);
        receive_exactly(fd, body, size);
        if (head[0] == 'E')
            die("load: the broker refused the start-up message");
    } while (head[0] != 'Z');
}

/* Blocks where the broker's backlog is full. */
static int connect_to(const char *path)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    if (strlen(path) >= sizeof address.sun_path)
        die("load: the path of the socket is too long");
    strcpy(address.sun_path, path);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0)
        die_errno("load: socket");
    if (connect(fd, (struct sockaddr *)&address, sizeof address))
        die_errno(path);
    if (postgres)
        start_postgres(fd);
    return fd;
}

static void client_connect(struct client *c)
{
    c->fd = connect_to(c->path);
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = c};
    if (epoll_ctl(epoll, EPOLL_CTL_ADD, c->fd, &event))
        die_errno("load: epoll_ctl");
}

/* ---- requests and replies ---- */

static void write_digits(unsigned char *at, uint32_t number)
{
    for (int i = DIGITS; i-- > 0; number >>= 4)
        at[i] = (unsigned char)"0123456789abcdef"[number & 15];
}

static void shape_request(size_t size, size_t reply_size, unsigned delay)
{
    if (size > MAX_REQUEST - 6)
        die("load: a request has at most %d bytes", MAX_REQUEST - 6);
    unsigned char *at = request;
    if (postgres) {
        *at++ = 'Q';
        put32(at, (uint32_t)(4 + size));
        at += 4;
    }
    request_digits = (size_t)(at - request);
    int n = snprintf((char *)at, size, "00000000 %zu %u ", reply_size, delay);
    if (n < 0 || (size_t)n >= size)
        die("load: a request needs at least %d bytes", n + 1);
    memset(at + n, 'x', size - (size_t)n - 1);
    at[size - 1] = postgres ? 0 : '\n';
    request_size = request_digits + size;
}

static void ask(struct client *c)
{
    c->asked = now_ns();
    c->number = next_number++;
    c->taken = 0;
    outstanding++;
    if (c->fd < 0)
        client_connect(c);
    write_digits(request + request_digits, c->number);
    if (send(c->fd, request, request_size, MSG_NOSIGNAL | MSG_DONTWAIT) != (ssize_t)request_size)
        die_errno("load: send");
}

/* Compares what arrived with that part of the reply. */
static void check(const struct client *c, const unsigned char *data, size_t size)
{
    unsigned char digits[DIGITS], head[FRAME];
    size_t at = c->taken, end = at + size, body_end = reply.head_size + reply.body;
    bool right = end <= reply.total;
    write_digits(digits, c->number);
    if (right && at < reply.head_size) {
        size_t n = end < reply.head_size ? size : reply.head_size - at;
        memcpy(head, reply.head, reply.head_size);
        memcpy(head + reply.digits, digits, DIGITS);
        right = !memcmp(data, head + at, n);
        data += n;
        at += n;
    }
    if (right && at < end && at < body_end) {
        size_t n = (end < body_end ? end : body_end) - at;
        right = !memcmp(data, pattern + reply_shift(digits) + at - reply.head_size, n);
        data += n;
        at += n;
    }
    if (right && at < end)
        right = !memcmp(data, reply.tail + at - body_end, end - at);
    if (!right)
        die("load: wrong reply to request %u within bytes %zu to %zu of %zu: it begins \"%.16s\"",
            c->number, c->taken, c->taken + size, reply.total, (const char *)data);
}

/* True when its reply is whole. */
static bool take(struct client *c)
{
    static unsigned char received[RECEIVE + 1];
    ssize_t n = recv(c->fd, received, RECEIVE, MSG_DONTWAIT);
    if (n < 0 && errno == EAGAIN)
        return false;
    if (n <= 0)
        die("load: the broker closed a connection");
    if (!c->asked)
        die("load: %zd bytes that nobody asked for", n);
    check(c, received, (size_t)n);
    c->taken += (size_t)n;
    if (c->taken < reply.total)
        return false;

    last_reply = now_ns();
    uint64_t latency = last_reply - c->asked;
    if (sample_count < MAX_SAMPLES)
        samples[sample_count++] = latency < UINT32_MAX ? (uint32_t)latency : UINT32_MAX;
    c->asked = 0;
    c->replies++;
    c->latency += latency;
    replies++;
    outstanding--;
    if (each_new) {
        close(c->fd);
        c->fd = -1;
    }
    return true;
}

/* All clients ask until `seconds` are over and each had a reply, then the rest comes in. */
static void phase(double seconds, bool yield)
{
    replies = sample_count = 0;
    for (size_t i = 0; i < client_count; i++)
        clients[i].replies = clients[i].latency = 0;
    last_reply = now_ns();
    uint64_t end = last_reply + (uint64_t)(seconds * 1e9);
    size_t unanswered = client_count;
    bool over = false;
    for (size_t i = 0; i < client_count; i++)
        ask(&clients[i]);
    while (outstanding) {
        struct epoll_event events[256];
        int n = epoll_wait(epoll, events, 256, 0);
        for (int i = 0; i < n; i++) {
            struct client *c = events[i].data.ptr;
            if (!take(c))
                continue;
            if (c->replies == 1)
                unanswered--;
            if (!over)
                ask(c);
        }
        uint64_t now = now_ns();
        over = now >= end && !unanswered;
        if (now > last_reply && now - last_reply > STALLED)
            die("load: no reply for %.0f s, %zu outstanding", (double)STALLED / 1e9, outstanding);
        if (n == 0 && yield)
            sched_yield();
    }
}

/* ---- the result ---- */

static int by_size(const void *a, const void *b)
{
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return x < y ? -1 : x > y;
}

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return x < y ? -1 : x > y;
}

static void print_result(double seconds, struct cpu from, struct cpu to)
{
    double *means = malloc(client_count * sizeof *means);
    if (!means)
        die("load: no memory");
    for (size_t i = 0; i < client_count; i++)
        means[i] = (double)clients[i].latency / (double)clients[i].replies;
    qsort(means, client_count, sizeof *means, by_value);
    qsort(samples, sample_count, sizeof *samples, by_size);
    double p50 = samples[sample_count / 2], p99 = samples[sample_count * 99 / 100];
    double slowest = samples[sample_count - 1];
    printf("{\"requests\": %llu, \"seconds\": %.6f, \"cpu\": %.9f, \"user\": %.3f, \"system\": %.3f, "
           "\"p50_us\": %.1f, \"p99_us\": %.1f, \"max_us\": %.1f, \"max_over_median\": %.3f, "
           "\"client_max_over_median\": %.3f}\n",
           (unsigned long long)replies, seconds, to.total - from.total, to.user - from.user,
           to.system - from.system, p50 / 1e3, p99 / 1e3, slowest / 1e3, slowest / p50,
           means[client_count - 1] / means[client_count / 2]);
    fflush(stdout);
    free(means);
}

static void wait_for_line(void)
{
    for (int c; (c = getchar()) != '\n' && c != EOF;)
        ;
}

int main(int argc, char **argv)
{
    const char *path = NULL;
    size_t hosts = 0, silent = 0, line = 32, reply_size = 32;
    unsigned delay = 0;
    double seconds = 1, warm_up = 0.1;
    bool gate = false, yield = false;
    for (int option; (option = getopt(argc, argv, "s:H:c:ni:q:r:l:t:w:p:gyP")) != -1;) {
        switch (option) {
        case 's': path = optarg; break;
        case 'H': hosts = strtoul(optarg, NULL, 10); break;
        case 'c': client_count = strtoul(optarg, NULL, 10); break;
        case 'n': each_new = true; break;
        case 'i': silent = strtoul(optarg, NULL, 10); break;
        case 'q': line = strtoul(optarg, NULL, 10); break;
        case 'r': reply_size = strtoul(optarg, NULL, 10); break;
        case 'l': delay = (unsigned)strtoul(optarg, NULL, 10); break;
        case 't': seconds = strtod(optarg, NULL); break;
        case 'w': warm_up = strtod(optarg, NULL); break;
        case 'p':
            if (pid_count == MAX_PIDS)
                die("load: too many processes");
            pids[pid_count++] = strtol(optarg, NULL, 10);
            break;
        case 'g': gate = true; break;
        case 'y': yield = true; break;
        case 'P': postgres = true; break;
        default: return 2;
        }
    }
    if (!path || !client_count || reply_size < MIN_REPLY || reply_size > MAX_REPLY)
        die("load: no socket, no client, or a reply size that cannot be made");
    struct rlimit descriptors;
    getrlimit(RLIMIT_NOFILE, &descriptors);
    descriptors.rlim_cur = descriptors.rlim_max;
    setrlimit(RLIMIT_NOFILE, &descriptors);
    pattern = make_pattern();
    shape_reply(&reply, reply_size, postgres);
    shape_request(line, reply_size, delay);
    samples = malloc(MAX_SAMPLES * sizeof *samples);
    clients = calloc(client_count, sizeof *clients);
    epoll = epoll_create1(EPOLL_CLOEXEC);
    if (!samples || !clients || epoll < 0)
        die("load: no memory");

    /* First: when the others have had their replies these were accepted too. */
    for (size_t i = 0; i < silent; i++)
        connect_to(path);
    for (size_t i = 0; i < client_count; i++) {
        char *own = NULL;
        if (hosts && asprintf(&own, "%s%zu", path, i % hosts) < 0)
            die("load: no memory");
        clients[i] = (struct client){.fd = -1, .path = own ? own : path};
        if (!each_new)
            client_connect(&clients[i]);
    }

    phase(warm_up, yield);
    if (gate) {
        puts("ready");
        fflush(stdout);
        wait_for_line();
    }
    struct cpu from = read_cpu();
    uint64_t start = now_ns();
    phase(seconds, yield);
    double took = (double)(now_ns() - start) / (double)SECOND;
    print_result(took, from, read_cpu());
    if (gate)
        wait_for_line();
    return 0;
}
