// The server of epoll_loop.cc in C. A worker claims when the mailbox that its loop watches says so.
//   cc -std=gnu99 epoll_loop_in_c.c -o in_c $(pkg-config --cflags --libs ringmaster-c) -pthread
//   ./in_c 7777     then: nc 127.0.0.1 7777; Ctrl-C or SIGTERM ends it

#include <errno.h>
#include <netinet/in.h>
#include <pthread.h>
#include <ringmaster/ringmaster.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <unistd.h>

static ringmaster_mailbox* mailboxes[4];  // by worker

static void Must(int result) {  // the text says what to do
  if (result < 0) fprintf(stderr, "%s\n", ringmaster_last_error()), _exit(1);
}

static int Watch(int epoll_fd, int fd) {
  return epoll_ctl(epoll_fd, EPOLL_CTL_ADD, fd, &(struct epoll_event){EPOLLIN, {.fd = fd}}) == 0;
}

static int Echo(int fd) {  // 0: the client is gone, or does not read its answers
  char bytes[4096];
  const ssize_t size = recv(fd, bytes, sizeof(bytes), 0);
  return size < 0 ? errno == EAGAIN : size > 0 && send(fd, bytes, size, MSG_NOSIGNAL) == size;
}

static void* Work(void* port) {
  const int mailbox_fd = ringmaster_mailbox_fd(mailboxes[ringmaster_port_worker(port)]);
  const int epoll_fd = epoll_create1(EPOLL_CLOEXEC), fds = sysconf(_SC_OPEN_MAX);
  ringmaster_connection claimed, *open = calloc(fds, sizeof(*open));  // by descriptor
  if (open == NULL || !Watch(epoll_fd, mailbox_fd)) perror("cannot watch the mailbox"), _exit(1);
  while (!ringmaster_port_ended(port)) {
    struct epoll_event events[64];
    ringmaster_port_before_wait(port);  // hints: the balancer knows who waits
    const int ready = epoll_wait(epoll_fd, events, 64, ringmaster_port_draining(port) ? 50 : -1);
    for (ringmaster_port_after_wait(port, 0); ringmaster_port_claim_one(port, &claimed, NULL) == 1;)
      if (open[claimed.fd] = claimed, !Watch(epoll_fd, claimed.fd))
        ringmaster_connection_close(&open[claimed.fd]);
    for (int i = 0; i < ready; ++i)
      if (events[i].data.fd != mailbox_fd && !Echo(events[i].data.fd))
        ringmaster_connection_close(&open[events[i].data.fd]);  // the balancer counts one less
    for (int fd = 0; ready == 0 && fd < fds; ++fd)  // after 50 ms of quiet: nothing is on its way
      if (ringmaster_lease_held(&open[fd].lease)) shutdown(fd, SHUT_RD);  // then recv is 0
  }
  return ringmaster_port_free(port), free(open), close(epoll_fd), NULL;
}

int main(int argc, char** argv) {
  static ringmaster_balancer* balancer;  // both to the end of the process
  static ringmaster_source* source;
  ringmaster_shutdown_options end = {.struct_size = sizeof(end), .drain_ns = 10000000000};
  pthread_t threads[4];
  sigset_t ends;  // blocked in all threads; sigwait takes them
  sigemptyset(&ends), sigaddset(&ends, SIGINT), sigaddset(&ends, SIGTERM);
  pthread_sigmask(SIG_BLOCK, &ends, NULL);
  int listen_fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0), on = 1, got;
  struct sockaddr_in address = {AF_INET, htons(argc > 1 ? atoi(argv[1]) : 7777), {0}, {0}};
  if (listen_fd < 0 || setsockopt(listen_fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on)) ||
      bind(listen_fd, (struct sockaddr*)&address, sizeof(address)) || listen(listen_fd, SOMAXCONN))
    perror("cannot listen"), _exit(1);
  Must(ringmaster_balancer_create(NULL, &balancer));
  Must(ringmaster_balancer_add_source(balancer, listen_fd, NULL, NULL, &source));
  Must(ringmaster_source_pause(source));  // until all workers are there
  for (int i = 0; i < 4; ++i) {
    ringmaster_port* port;
    Must(ringmaster_mailbox_create(&mailboxes[i]));
    Must(ringmaster_balancer_add_worker(balancer, mailboxes[i], NULL, &port));
    Must(ringmaster_source_join(source, port, 0));
    if (pthread_create(&threads[i], NULL, Work, port)) perror("pthread_create"), _exit(1);
  }
  Must(ringmaster_source_resume(source)), sigwait(&ends, &got);
  psignal(got, "no new connections because of"), Must(ringmaster_source_remove(source));
  close(listen_fd), Must(ringmaster_balancer_shutdown(balancer, &end, NULL, NULL));
  for (int i = 0; i < 4; ++i) pthread_join(threads[i], NULL), ringmaster_mailbox_free(mailboxes[i]);
}
