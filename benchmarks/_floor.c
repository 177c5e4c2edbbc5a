// What the kernel costs, without a language: connects and ping-pong of one epoll loop in C.
//
//   _floor connect N         all at once, then closed with RST
//   _floor turns N AT_ONCE   so many at once, the next as one ends, each closed with RST at once
//   _floor echo N ROUNDS     N connections, 64 bytes there and back ROUNDS times on each, all at once
//   _floor hold N            all at once, and kept until stdin ends: what a server is measured with
//   _floor accept N          listens on the first address, says so, and accepts N connections
//
// Reads N addresses, "HOST PORT" a line, from stdin. Prints CPU and wall nanoseconds per connection, or per round trip.
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define EVENTS 512
#define RECORD 64

static int *fds, poll_fd, one = 1;
static struct sockaddr_in *addresses;

static void die(const char *what) { perror(what); exit(1); }

static double clock_ns(clockid_t which) {
    struct timespec t;
    clock_gettime(which, &t);
    return t.tv_sec * 1e9 + t.tv_nsec;
}

// The same system calls as a connect of ours: a second connect(2) says how far it is. Returns whether it is up.
static int begin(int i) {
    int fd = fds[i] = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0) die("socket");
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    if (connect(fd, (void *)&addresses[i], sizeof addresses[i]) && errno != EINPROGRESS) die("connect");
    if (!connect(fd, (void *)&addresses[i], sizeof addresses[i])) return 1;
    if (errno != EALREADY) die("connect, again");
    struct epoll_event event = {EPOLLOUT | EPOLLET, {.u32 = i}};
    if (epoll_ctl(poll_fd, EPOLL_CTL_ADD, fd, &event)) die("epoll_ctl");
    return 0;
}

static int is_up(int i) {
    if (!connect(fds[i], (void *)&addresses[i], sizeof addresses[i])) return 1;
    // EISCONN: it was up before, and this event is about something else.
    if (errno != EALREADY && errno != EISCONN) die("connect, later");
    return 0;
}

static void reset(int i) {
    struct linger now = {1, 0};
    setsockopt(fds[i], SOL_SOCKET, SO_LINGER, &now, sizeof now);
    close(fds[i]);
}

static void connect_all(int n) {
    struct epoll_event events[EVENTS];
    int pending = 0;
    for (int i = 0; i < n; i++) pending += !begin(i);
    while (pending) {
        int count = epoll_wait(poll_fd, events, EVENTS, -1);
        for (int j = 0; j < count; j++) pending -= is_up(events[j].data.u32);
    }
}

static void take_turns(int n, int at_once) {
    struct epoll_event events[EVENTS];
    int next = 0, pending = 0;
    for (;;) {
        while (next < n && pending < at_once) {
            if (begin(next)) reset(next);
            else pending++;
            next++;
        }
        if (!pending) return;
        int count = epoll_wait(poll_fd, events, EVENTS, -1);
        for (int j = 0; j < count; j++) {
            int i = events[j].data.u32;
            if (is_up(i)) { reset(i); pending--; }
        }
    }
}

static void ping_pong(int n, int rounds) {
    struct epoll_event events[EVENTS];
    static char buffer[1 << 16];
    int *left = malloc(sizeof *left * n), running = n;
    for (int i = 0; i < n; i++) {
        left[i] = rounds;
        if (send(fds[i], buffer, RECORD, 0) != RECORD) die("send");
    }
    while (running) {
        int count = epoll_wait(poll_fd, events, EVENTS, -1);
        for (int j = 0; j < count; j++) {
            int i = events[j].data.u32;
            ssize_t got = recv(fds[i], buffer, sizeof buffer, 0);
            if (got < 0 && errno == EAGAIN) continue;
            if (got != RECORD) die("recv");
            if (!--left[i]) running--;
            else if (send(fds[i], buffer, RECORD, 0) != RECORD) die("send");
        }
    }
    free(left);
}

// Every accepted socket gets what one of ours gets: non-blocking, close-on-exec, its peer's address, NODELAY.
static void accept_all(int listener, int n) {
    struct epoll_event event = {EPOLLIN | EPOLLET, {.u32 = 0}};
    if (epoll_ctl(poll_fd, EPOLL_CTL_ADD, listener, &event)) die("epoll_ctl");
    for (int i = 0; i < n;) {
        struct sockaddr_in peer;
        socklen_t size = sizeof peer;
        int fd = accept4(listener, (void *)&peer, &size, SOCK_CLOEXEC | SOCK_NONBLOCK);
        if (fd >= 0) {
            setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
            fds[i++] = fd;
        } else if (errno == EAGAIN) epoll_wait(poll_fd, &event, 1, -1);
        else die("accept");
    }
}

static int listen_on(struct sockaddr_in *address) {
    int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    if (bind(listener, (void *)address, sizeof *address) || listen(listener, 65535)) die("listen");
    printf("listening\n");
    fflush(stdout);
    return listener;
}

int main(int argc, char **argv) {
    if (argc < 3) return 2;
    const char *mode = argv[1];
    int n = atoi(argv[2]), per = argc > 3 ? atoi(argv[3]) : 1;
    struct rlimit limit;
    getrlimit(RLIMIT_NOFILE, &limit);
    limit.rlim_cur = limit.rlim_max;
    setrlimit(RLIMIT_NOFILE, &limit);
    fds = malloc(sizeof *fds * n);
    addresses = calloc(n, sizeof *addresses);
    int accepts = !strcmp(mode, "accept");
    for (int i = 0; i < (accepts ? 1 : n); i++) {
        char host[64];
        int port;
        if (scanf("%63s %d", host, &port) != 2) return 2;
        addresses[i].sin_family = AF_INET;
        addresses[i].sin_port = htons(port);
        addresses[i].sin_addr.s_addr = inet_addr(host);
    }
    poll_fd = epoll_create1(EPOLL_CLOEXEC);
    int listener = accepts ? listen_on(addresses) : -1;
    double count = n;
    int echo = !strcmp(mode, "echo");
    if (echo) {
        connect_all(n);
        struct epoll_event event = {.events = EPOLLIN | EPOLLET};
        for (int i = 0; i < n; i++) {
            event.data.u32 = i;
            if (epoll_ctl(poll_fd, EPOLL_CTL_MOD, fds[i], &event) && epoll_ctl(poll_fd, EPOLL_CTL_ADD, fds[i], &event)) die("epoll_ctl");
        }
        ping_pong(n, per / 20 + 1);
        count *= per;
    }
    double cpu = clock_ns(CLOCK_PROCESS_CPUTIME_ID), wall = clock_ns(CLOCK_MONOTONIC);
    if (echo) ping_pong(n, per);
    else if (accepts) accept_all(listener, n);
    else if (!strcmp(mode, "turns")) take_turns(n, per);
    else connect_all(n);
    cpu = clock_ns(CLOCK_PROCESS_CPUTIME_ID) - cpu;
    wall = clock_ns(CLOCK_MONOTONIC) - wall;
    if (!strcmp(mode, "hold"))
        while (getchar() != EOF) ;
    if (!strcmp(mode, "connect")) {
        double before = clock_ns(CLOCK_PROCESS_CPUTIME_ID);
        for (int i = 0; i < n; i++) reset(i);
        cpu += clock_ns(CLOCK_PROCESS_CPUTIME_ID) - before;
    }
    printf("%.1f %.1f\n", cpu / count, wall / count);
}
