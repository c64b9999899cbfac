// Workers with libevent: each watches a mailbox, and serves what it claims by bufferevents.
//   c++ -std=c++20 libevent_loop.cc -o server $(pkg-config --cflags --libs ringmaster libevent)
//   ./server 7777     then: nc 127.0.0.1 7777; Ctrl-C or SIGTERM ends it

#include <event2/buffer.h>
#include <event2/bufferevent.h>
#include <netinet/in.h>
#include <ringmaster/adapters/libevent.h>
#include <unistd.h>

#include <csignal>
#include <map>
#include <thread>

static void Must(const absl::Status& status) {  // the text says what to do
  if (!status.ok()) std::fprintf(stderr, "%s\n", status.ToString().c_str()), _exit(1);
}

// A worker's clients: each ends when its connection is closed.
static thread_local std::map<bufferevent*, ringmaster::Connection> clients;

static void Forget(bufferevent* events, short, void*) {  // the client is gone, or its socket fails
  bufferevent_free(events), clients.erase(events);
}

static void Echo(bufferevent* events, void*) {
  evbuffer_add_buffer(bufferevent_get_output(events), bufferevent_get_input(events));
}

static void Work(ringmaster::Balancer* balancer, ringmaster::Source source) {
  event_base* const base = event_base_new();
  ringmaster::WorkerHandlers handlers;
  handlers.serve = [&](ringmaster::Connection claimed) {
    bufferevent* const events = bufferevent_socket_new(base, claimed.fd(), 0);
    clients[events] = std::move(claimed);
    bufferevent_setcb(events, Echo, nullptr, Forget, nullptr);
    bufferevent_enable(events, EV_READ | EV_WRITE);
  };
  const auto hang_up = [](auto, short, void*) {  // the next read tells of the end
    for (auto& it : clients) shutdown(it.second.fd(), SHUT_RD);
  };
  event* const quiet = evtimer_new(base, hang_up, nullptr);
  const timeval patience = {0, 50'000};
  handlers.drain = [&] { evtimer_add(quiet, &patience); };
  handlers.end = [&] {
    event_del(quiet);
    while (!clients.empty()) Forget(clients.begin()->first, 0, nullptr);
  };
  auto worker = ringmaster::LibeventWorker::Create(base, *balancer, std::move(handlers));
  const absl::Status joined = worker.ok() ? source.Join(worker->port()) : worker.status();
  if (!joined.ok()) puts(joined.ToString().c_str());  // maybe it was ended already
  if (joined.ok()) event_base_dispatch(base);         // until nothing is left to wait for
  if (worker.ok()) worker->Leave();
  event_free(quiet), event_base_free(base);
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
