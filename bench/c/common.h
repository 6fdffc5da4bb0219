/* What the load generator and the peer agree on: the shape of a request and of
 * its reply, and how to pass the time without sleeping.
 *
 * A request is one line of a chosen length,
 *
 *     <8 hex digits> <reply size> <delay in us> <filler> LF
 *
 * and its reply is the same 8 digits, bytes of a fixed pattern, LF, `reply
 * size` bytes in all.  The digits choose where in the pattern the reply
 * begins, so a reply that was cut, mixed up or given to the wrong client
 * cannot look right.
 *
 * For PgBouncer both are wrapped in the messages of PostgreSQL's simple query
 * protocol: the line is the text of a Query, the reply the one column of a
 * DataRow.  Sizes are those of the line either way.
 */
#ifndef BENCH_COMMON_H
#define BENCH_COMMON_H

#define _GNU_SOURCE
#include <errno.h>
#include <sched.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum {
    DIGITS = 8,             /* of the number at the head of a request */
    SHIFTS = 1024,          /* places in the pattern where a reply may begin */
    MAX_REQUEST = 8192,
    MIN_REPLY = DIGITS + 1,
    MAX_REPLY = 4 << 20,
    FRAME = 64,             /* room for what stands before or after the pattern */
};

_Noreturn static void die(const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    vfprintf(stderr, format, arguments);
    va_end(arguments);
    fputc('\n', stderr);
    exit(1);
}

_Noreturn static void die_errno(const char *what)
{
    die("%s: %s", what, strerror(errno));
}

static inline uint64_t now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static inline void put32(unsigned char *at, uint32_t value)
{
    for (int i = 0; i < 4; i++)
        at[i] = (unsigned char)(value >> (24 - 8 * i));
}

static inline uint32_t get32(const unsigned char *at)
{
    return (uint32_t)at[0] << 24 | (uint32_t)at[1] << 16 | (uint32_t)at[2] << 8 | at[3];
}

/* Any byte but LF, the same in both programs. */
static inline const unsigned char *make_pattern(void)
{
    size_t size = MAX_REPLY + SHIFTS;
    unsigned char *pattern = malloc(size);
    uint32_t x = 2463534242u;
    if (!pattern)
        die("no memory");
    for (size_t i = 0; i < size; i++) {
        x ^= x << 13;
        x ^= x >> 17;
        x ^= x << 5;
        pattern[i] = (unsigned char)x == '\n' ? 'n' : (unsigned char)x;
    }
    return pattern;
}

/* One reply, as it stands on the wire: head, `body` bytes of pattern, tail.
 * The digits stand at `digits` in the head. */
struct reply {
    unsigned char head[FRAME], tail[FRAME];
    size_t head_size, tail_size, digits, body, total;
};

static inline void shape_reply(struct reply *r, size_t line_size, bool postgres)
{
    unsigned char *h = r->head;
    r->body = line_size - MIN_REPLY;
    if (postgres) {
        size_t column = line_size - 1;          /* without its LF */
        *h++ = 'D';
        put32(h, (uint32_t)(4 + 2 + 4 + column));
        h[4] = 0, h[5] = 1;
        put32(h + 6, (uint32_t)column);
        h += 10;
        static const unsigned char done[] = "C\0\0\0\rSELECT 1\0Z\0\0\0\5I";
        r->tail_size = sizeof done - 1;
        memcpy(r->tail, done, r->tail_size);
    } else {
        r->tail_size = 1;
        r->tail[0] = '\n';
    }
    r->digits = (size_t)(h - r->head);
    memcpy(h, "00000000", DIGITS);
    r->head_size = r->digits + DIGITS;
    r->total = r->head_size + r->body + r->tail_size;
}

static inline size_t reply_shift(const unsigned char *digits)
{
    size_t value = 0;
    for (int i = DIGITS - 3; i < DIGITS; i++)
        value = value << 4 | (size_t)((digits[i] & 15) + (digits[i] > '9' ? 9 : 0));
    return value % SHIFTS;
}

#endif
