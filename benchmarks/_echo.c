// The other end of a ping-pong: _echo CORE prints a port of all of this machine's addresses and sends back what comes.
// One epoll loop, so that a thousand connections cost no thousand threads. It ends with whoever has started it.
#define _GNU_SOURCE
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

static void die(const char *what) { perror(what); exit(1); }

int main(int argc, char **argv) {
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    int core = argc > 1 ? atoi(argv[1]) : -1;
    if (core >= 0) {
        cpu_set_t set;
        CPU_ZERO(&set);
        CPU_SET(core, &set);
        sched_setaffinity(0, sizeof set, &set);
    }
    if (nice(-15) == -1) errno = 0;  // where that is not permitted it answers as soon as it can
    struct rlimit limit;
    getrlimit(RLIMIT_NOFILE, &limit);
    limit.rlim_cur = limit.rlim_max;
    setrlimit(RLIMIT_NOFILE, &limit);
    int one = 1, listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    struct sockaddr_in name = {.sin_family = AF_INET};
    socklen_t size = sizeof name;
    if (bind(listener, (void *)&name, size) || listen(listener, 65535)) die("listen");
    getsockname(listener, (void *)&name, &size);
    printf("%d\n", ntohs(name.sin_port));
    fflush(stdout);
    int poll = epoll_create1(EPOLL_CLOEXEC);
    struct epoll_event wanted = {EPOLLIN, {.fd = listener}}, events[512];
    epoll_ctl(poll, EPOLL_CTL_ADD, listener, &wanted);
    static char buffer[1 << 16];
    for (;;) {
        int count = epoll_wait(poll, events, 512, -1);
        for (int i = 0; i < count; i++) {
            int fd = events[i].data.fd;
            if (fd == listener) {
                while ((fd = accept4(listener, 0, 0, SOCK_CLOEXEC | SOCK_NONBLOCK)) >= 0) {
                    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
                    wanted.data.fd = fd;
                    epoll_ctl(poll, EPOLL_CTL_ADD, fd, &wanted);
                }
                continue;
            }
            ssize_t got = recv(fd, buffer, sizeof buffer, 0);
            // What is sent back is so little that the socket's buffer always has room for it.
            if (got <= 0 || send(fd, buffer, got, MSG_NOSIGNAL) != got) close(fd);
        }
    }
}
