// Workers with libuv loops: each polls a mailbox, and opens what it claims as a uv_tcp_t.
//   c++ -std=c++20 libuv_loop.cc -o libuv_loop $(pkg-config --cflags --libs ringmaster libuv)
//   ./libuv_loop 7777     then: nc 127.0.0.1 7777; Ctrl-C or SIGTERM ends it

#include <netinet/in.h>
#include <ringmaster/balancer.h>
#include <unistd.h>
#include <uv.h>

#include <thread>

static void Must(const absl::Status& status) {  // the text says what to do
  if (!status.ok()) fprintf(stderr, "%s\n", status.ToString().c_str()), _exit(1);
}

struct Client : uv_tcp_t {
  ringmaster::Lease lease;  // ends when the descriptor is closed
};

static void Close(uv_handle_t* handle, void* = nullptr) {
  const auto forget = [](uv_handle_t* it) { it->type == UV_TCP ? delete (Client*)it : void(); };
  if (!uv_is_closing(handle)) uv_close(handle, forget);
}

static void Echo(uv_stream_t* tcp, ssize_t size, const uv_buf_t* bytes) {
  const uv_buf_t answer = uv_buf_init(bytes->base, size < 0 ? 0 : size);
  if (size < 0 || uv_try_write(tcp, &answer, 1) != size) Close((uv_handle_t*)tcp);
}

static void Work(ringmaster::Port own, ringmaster::Mailbox mailbox) {
  uv_loop_t loop;
  uv_poll_t bell;
  static thread_local uv_timer_t quiet;
  if (uv_loop_init(&loop) || uv_poll_init(&loop, &bell, mailbox.fd()))
    Must(absl::ErrnoToStatus(errno, "libuv"));
  bell.data = &own, uv_timer_init(&loop, &quiet);
  uv_poll_start(&bell, UV_READABLE, [](uv_poll_t* it, int, int) {
    auto& port = *(ringmaster::Port*)it->data;
    port.Claim([it](ringmaster::Connection claimed) {
      auto* client = new Client;
      uv_tcp_init(it->loop, client), uv_tcp_open(client, claimed.TakeFd());
      client->lease = claimed.TakeLease();
      static thread_local char bytes[4096];
      const auto room = [](auto*, size_t, uv_buf_t* to) { *to = uv_buf_init(bytes, 4096); };
      uv_read_start((uv_stream_t*)client, room, Echo);
    });
    static constexpr auto hang_up = [](uv_handle_t* handle, void*) {
      uv_os_fd_t fd;  // what has arrived is answered, then a read tells of the end
      if (handle->type == UV_TCP && uv_fileno(handle, &fd) == 0) shutdown(fd, SHUT_RD);
    };
    const auto time_up = [](uv_timer_t* timer) { uv_walk(timer->loop, hang_up, nullptr); };
    if (port.draining()) uv_timer_start(&quiet, time_up, 50, 0);  // after the last one was claimed
    if (port.ended()) uv_walk(it->loop, Close, nullptr);
  });
  uv_run(&loop, UV_RUN_DEFAULT), uv_loop_close(&loop);  // once every handle is closed
}

int main(int argc, char** argv) {
  sigset_t ends;  // blocked in all threads; sigwaitinfo takes them
  sigemptyset(&ends), sigaddset(&ends, SIGINT), sigaddset(&ends, SIGTERM);
  pthread_sigmask(SIG_BLOCK, &ends, nullptr);
  const int listen_fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0), on = 1;
  const sockaddr_in address = {AF_INET, htons(argc > 1 ? std::atoi(argv[1]) : 7777), {}, {}};
  if (listen_fd < 0 || setsockopt(listen_fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on)) ||
      bind(listen_fd, (const sockaddr*)&address, sizeof(address)) || listen(listen_fd, SOMAXCONN))
    Must(absl::ErrnoToStatus(errno, "cannot listen"));
  auto balancer = ringmaster::Balancer::Create();
  Must(balancer.status());
  auto source = (*balancer)->AddSource(listen_fd, {.start_workers = 4}).value();
  std::jthread workers[4];
  for (std::jthread& worker : workers) {
    auto mailbox = ringmaster::Mailbox::Create().value();
    auto port = (*balancer)->AddWorker(mailbox).value();
    Must(source.Join(port));
    worker = std::jthread(Work, std::move(port), std::move(mailbox));
  }
  psignal(TEMP_FAILURE_RETRY(sigwaitinfo(&ends, nullptr)), "no new connections because of");
  (*balancer)->Shutdown({.drain = absl::Seconds(10), .on_intake_ended = [&] { close(listen_fd); }});
}
