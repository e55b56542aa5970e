/* The app as a static program; release.py tells what it does. A thread a connection, as its work is to sleep. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define ROOM 16384

static int version;
static char mode[16];
static double up_at, work_ms = 3;

static double now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return t.tv_sec + t.tv_nsec / 1e9;
}

static void pause_ms(double ms) {
  struct timespec t = {(time_t)(ms / 1000), (long)((ms - 1000.0 * (time_t)(ms / 1000)) * 1e6)};
  while (nanosleep(&t, &t)) {}
}

static int is(const char *name) { return !strcmp(mode, name); }

static void tell(const char *what) {
  FILE *file = fopen(getenv("APP_LIFE"), "a");
  if (!file) exit(70);
  fprintf(file, "%s %d %d %.6f\n", what, (int)getpid(), version, now());
  fclose(file);
}

static void end(int number) {
  (void)number;
  _exit(0);
}

/* Answers the request in `data`, whose head is `head` long; gives 0 to close. */
static int answer(int peer, const char *data, size_t head, size_t length) {
  char line[256];
  double ms = work_ms;
  int is_post = !strncmp(data, "POST ", 5);
  const char *path = strchr(data, ' ');
  const char *close_it = strcasestr(data, "\r\nconnection: close");
  int closing = close_it && close_it < data + head;
  if (path && !strncmp(path + 1, "/sleep/", 7)) ms = atof(path + 8);
  pause_ms(is("slow") ? 5000 : ms);
  int bad = is("500s") || (is("turns") && now() - up_at > 3);
  const char *body = is_post ? data + head : "ok\n";
  if (!is_post) length = 3;
  int size = snprintf(line, sizeof line, "HTTP/1.1 %s\r\nContent-Length: %zu\r\nApp-Version: %d\r\n%s\r\n",
                      bad ? "500 Bad" : "200 OK", length, version, closing ? "Connection: close\r\n" : "");
  struct iovec parts[2] = {{line, (size_t)size}, {(void *)body, length}};
  struct msghdr message = {.msg_iov = parts, .msg_iovlen = 2};
  return sendmsg(peer, &message, MSG_NOSIGNAL) == (ssize_t)(size + length) && !closing;
}

static void *serve(void *argument) {
  int peer = (int)(long)argument;
  char data[ROOM + 1];
  size_t have = 0;
  for (;;) {
    data[have] = 0;
    char *end_of_head = strstr(data, "\r\n\r\n");
    if (end_of_head) {
      size_t head = (size_t)(end_of_head - data) + 4;
      const char *field = strcasestr(data, "\r\ncontent-length:");
      size_t length = field && field < end_of_head ? strtoul(field + 17, NULL, 10) : 0;
      if (head + length > ROOM) break;
      if (have >= head + length) {
        if (!answer(peer, data, head, length)) break;
        have -= head + length;
        memmove(data, data + head + length, have);
        continue;
      }
    }
    ssize_t got = have < ROOM ? recv(peer, data + have, ROOM - have, 0) : 0;
    if (got <= 0) break;
    have += (size_t)got;
  }
  close(peer);
  return NULL;
}

static int listener(void) {
  const char *host = getenv("HOST");
  int on = 1, made = socket(AF_INET, SOCK_STREAM, 0);
  struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)atoi(getenv("PORT")))};
  inet_pton(AF_INET, host ? host : "127.0.0.1", &address.sin_addr);
  setsockopt(made, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
  setsockopt(made, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
  if (bind(made, (struct sockaddr *)&address, sizeof address) || listen(made, 1024)) {
    perror("listen");
    exit(1);
  }
  return made;
}

int main(void) {
  FILE *file = fopen(getenv("APP_RELEASE"), "r");
  if (!file || fscanf(file, "%d %15s", &version, mode) < 1) return 70;
  fclose(file);
  if (getenv("APP_WORK_MS")) work_ms = atof(getenv("APP_WORK_MS"));
  signal(SIGTERM, end);
  tell("started");
  pause_ms(1000 * (getenv("APP_BOOT_SECONDS") ? atof(getenv("APP_BOOT_SECONDS")) : 1));
  if (is("exit")) return 1;
  while (is("deaf")) pause();
  int made = listener();
  up_at = now();
  tell("up");
  pthread_attr_t small;
  pthread_attr_init(&small);
  pthread_attr_setdetachstate(&small, PTHREAD_CREATE_DETACHED);
  pthread_attr_setstacksize(&small, 65536);
  for (;;) {
    pthread_t thread;
    int peer = accept(made, NULL, NULL);
    if (peer >= 0 && pthread_create(&thread, &small, serve, (void *)(long)peer)) close(peer);
  }
}
