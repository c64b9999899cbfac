// Workers with libuv loops: each polls a mailbox, and opens what it claims as a uv_tcp_t.
//   c++ -std=c++20 libuv_loop.cc -o libuv_loop $(pkg-config --cflags --libs ringmaster libuv)
//   ./libuv_loop 7777     then: nc 127.0.0.1 7777; Ctrl-C or SIGTERM ends it

#include <netinet/in.h>
#include <ringmaster/adapters/libuv.h>
#include <unistd.h>

#include <csignal>
#include <thread>

static void Must(const absl::Status& status) {  // the text says what to do
  if (!status.ok()) std::fprintf(stderr, "%s\n", status.ToString().c_str()), _exit(1);
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

static void HangUp(uv_handle_t* handle, void*) {
  uv_os_fd_t fd;  // what has arrived is answered, then a read tells of the end
  if (handle->type == UV_TCP && uv_fileno(handle, &fd) == 0) shutdown(fd, SHUT_RD);
}

static void Work(ringmaster::Balancer* balancer, ringmaster::Source source) {
  uv_loop_t loop;
  uv_timer_t quiet;
  if (uv_loop_init(&loop) || uv_timer_init(&loop, &quiet)) abort();
  ringmaster::WorkerHandlers handlers;
  handlers.serve = [&](ringmaster::Connection claimed) {
    auto* client = new Client;
    uv_tcp_init(&loop, client);
    auto lease = ringmaster::UvOpen(client, std::move(claimed));
    if (!lease.ok()) return Close((uv_handle_t*)client);
    client->lease = *std::move(lease);
    static thread_local char bytes[4096];
    const auto room = [](auto*, size_t, uv_buf_t* to) { *to = uv_buf_init(bytes, 4096); };
    uv_read_start((uv_stream_t*)client, room, Echo);
  };
  const auto time_up = [](uv_timer_t* timer) { uv_walk(timer->loop, HangUp, nullptr); };
  handlers.drain = [&] { uv_timer_start(&quiet, time_up, 50, 0); };
  handlers.end = [&] { uv_walk(&loop, Close, nullptr); };
  auto worker = ringmaster::UvWorker::Create(&loop, *balancer, std::move(handlers));
  const absl::Status joined = worker.ok() ? source.Join(worker->port()) : worker.status();
  if (!joined.ok()) puts(joined.ToString().c_str()), Close((uv_handle_t*)&quiet);  // it has ended
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
  ringmaster::SourceOptions options = {.start_workers = 4};
  options.policy = ringmaster::PolicyByName(argc > 2 ? argv[2] : "least-loaded").value();
  auto source = (*balancer)->AddSource(listen_fd, std::move(options)).value();
  std::jthread workers[4];
  for (std::jthread& worker : workers) worker = std::jthread(Work, balancer->get(), source);
  psignal(TEMP_FAILURE_RETRY(sigwaitinfo(&ends, nullptr)), "no new connections because of");
  const auto end = (*balancer)->Shutdown(
      {.drain = absl::Seconds(10), .on_intake_ended = [&] { close(listen_fd); }});
  for (const auto& it : end.stats.workers) std::printf("worker %u: %lu\n", it.worker, it.claimed);
}
