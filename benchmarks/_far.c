// _far CORE FD SECONDS: as _far.py, but fast enough for thousands at once. Answers each SYN with SYN and ACK, SECONDS later,
// and each FIN at once with RST, so that what was closed is gone. It ends with whoever has started it.
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <time.h>
#include <unistd.h>

#define WAITING 65536
#define SIZE 40

// RFC 9293 section 3.1
enum { FIN = 0x01, SYN = 0x02, RST = 0x04, ACK = 0x10 };

static struct { double due; unsigned char packet[SIZE]; } waiting[WAITING];
static unsigned head, tail;

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec + t.tv_nsec * 1e-9;
}

// RFC 1071
static uint16_t checksum(const unsigned char *data, int size, uint32_t sum) {
    for (int i = 0; i < size; i += 2) sum += data[i] << 8 | data[i + 1];
    while (sum >> 16) sum = (sum & 0xffff) + (sum >> 16);
    return ~sum;
}

static void make(unsigned char *p, const unsigned char *ip, const unsigned char *tcp, int flags) {
    memset(p, 0, SIZE);
    p[0] = 0x45, p[3] = SIZE, p[8] = 64, p[9] = 6;
    memcpy(p + 12, ip + 16, 4), memcpy(p + 16, ip + 12, 4);
    memcpy(p + 20, tcp + 2, 2), memcpy(p + 22, tcp, 2);
    if (flags & SYN) {
        uint32_t sequence;
        memcpy(&sequence, tcp + 4, 4);
        sequence = htonl(ntohl(sequence) + 1);
        p[27] = 1;
        memcpy(p + 28, &sequence, 4);
    } else memcpy(p + 24, tcp + 8, 4);  // its acknowledgement is the sequence number that it expects
    p[32] = 5 << 4, p[33] = flags, p[34] = p[35] = 0xff;
    uint32_t pseudo = 6 + 20;
    for (int i = 12; i < 20; i += 2) pseudo += p[i] << 8 | p[i + 1];
    uint16_t sum = checksum(p + 20, 20, pseudo);
    p[36] = sum >> 8, p[37] = sum;
    sum = checksum(p, 20, 0);
    p[10] = sum >> 8, p[11] = sum;
}

int main(int argc, char **argv) {
    if (argc < 4) return 2;
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    prctl(PR_SET_TIMERSLACK, 1000);
    int core = atoi(argv[1]), fd = atoi(argv[2]);
    double delay = atof(argv[3]);
    if (core >= 0) {
        cpu_set_t set;
        CPU_ZERO(&set);
        CPU_SET(core, &set);
        sched_setaffinity(0, sizeof set, &set);
    }
    if (nice(-15) == -1) errno = 0;  // where that is not permitted it answers as soon as it can
    fcntl(fd, F_SETFL, O_NONBLOCK);
    printf("ready\n");
    fflush(stdout);
    static unsigned char read_buffer[2048];
    for (;;) {
        struct pollfd wanted = {fd, POLLIN, 0};
        struct timespec patience, *until = 0;
        if (head != tail) {
            double left = waiting[tail % WAITING].due - now();
            if (left < 0) left = 0;
            patience.tv_sec = left;
            patience.tv_nsec = (left - patience.tv_sec) * 1e9;
            until = &patience;
        }
        ppoll(&wanted, 1, until, 0);
        double read_at = now();
        while (read(fd, read_buffer, sizeof read_buffer) > 0) {
            unsigned char *tcp = read_buffer + (read_buffer[0] & 15) * 4, reply[SIZE];
            if (read_buffer[0] >> 4 != 4 || read_buffer[9] != 6) continue;
            if ((tcp[13] & (FIN | SYN | RST | ACK)) == SYN) {
                // One delay for all, so what comes first leaves first.
                waiting[head % WAITING].due = read_at + delay;
                make(waiting[head++ % WAITING].packet, read_buffer, tcp, SYN | ACK);
            } else if (tcp[13] & FIN) {
                make(reply, read_buffer, tcp, RST);
                if (write(fd, reply, SIZE) < 0) break;
            }
        }
        double due = now();
        while (head != tail && waiting[tail % WAITING].due <= due) {
            if (write(fd, waiting[tail % WAITING].packet, SIZE) < 0 && errno == EAGAIN) break;
            tail++;
        }
    }
}
