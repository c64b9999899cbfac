// What a connection costs that a parent gives to a worker process, beside one that the worker
// accepts by a permit; and what the way itself costs: a descriptor through a Unix socket, beside
// one by IORING_OP_MSG_RING. The figures in tools/docs/PROCESSES.md are of this program.
//
//   given_cost [CONNECTIONS]
//
// One client at a time connects, gets one byte, and is closed. CPU time is that of the workers and
// of the parent, not of the client.

#include <liburing.h>
#include <poll.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <vector>

#include "process_server.h"
#include "processes/chute.h"
#include "ringmaster/processes.h"

namespace ringmaster::testing {
namespace {

using Clock = std::chrono::steady_clock;

void Must(bool what, const char* text) {
  if (what) return;
  std::perror(text);
  _exit(1);
}

double CpuMicroseconds(int who) {
  rusage usage{};
  getrusage(who, &usage);
  const auto of = [](const timeval& time) {
    return 1e6 * static_cast<double>(time.tv_sec) + static_cast<double>(time.tv_usec);
  };
  return of(usage.ru_utime) + of(usage.ru_stime);
}

double Median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  return values[values.size() / 2];
}

[[noreturn]] void Serve(absl::StatusOr<ProcessPort> port) {
  Must(port.ok(), "Join");
  while (!port->draining()) {
    port->BeforeWait();
    pollfd sight{.fd = port->sight(), .events = POLLIN, .revents = 0};
    poll(&sight, 1, -1);
    port->AfterWait(/*by_port=*/true);
    port->Claim([](ProcessConnection connection) {
      Must(send(connection.fd(), "a", 1, MSG_NOSIGNAL) == 1, "send");
    });
  }
  _exit(0);
}

struct Cost {
  double cpu_us = 0;
  double wall_us = 0;
};

// In a process of its own, whose CPU time is that of the parent and its workers.
Cost Measure(bool given, int connections) {
  const ProcessListener listener;
  int report[2];
  Must(pipe(report) == 0, "pipe");
  const pid_t parent = fork();
  if (parent == 0) {
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    auto workers = WorkerProcesses::Create({.given_max = given ? 8u : 0u});
    Must(workers.ok(), "Create");
    const absl::Status added =
        given ? (*workers)->AcceptAndGive(listener.fd()) : (*workers)->AddListener(listener.fd());
    Must(added.ok(), "listener");
    std::vector<pid_t> pids;
    for (int i = 0; i < 4; ++i) {
      pids.push_back(fork());
      if (pids.back() == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        Serve((*workers)->Join());
      }
    }
    char byte = 0;
    Must(read(report[0], &byte, 1) == 1, "read");
    (*workers)->BeginShutdown();
    for (const pid_t pid : pids) waitpid(pid, nullptr, 0);
    const double cpu = CpuMicroseconds(RUSAGE_SELF) + CpuMicroseconds(RUSAGE_CHILDREN);
    Must(write(report[1], &cpu, sizeof(cpu)) == sizeof(cpu), "write");
    _exit(0);
  }
  const auto begun = Clock::now();
  for (int i = 0; i < connections; ++i) {
    const int fd = listener.Connect();
    char byte = 0;
    Must(fd >= 0 && recv(fd, &byte, 1, 0) == 1, "a client");
    close(fd);
  }
  const std::chrono::duration<double, std::micro> wall = Clock::now() - begun;
  Must(write(report[1], "e", 1) == 1, "write");
  waitpid(parent, nullptr, 0);
  double cpu = 0;
  Must(read(report[0], &cpu, sizeof(cpu)) == sizeof(cpu), "read");
  for (const int end : report) close(end);
  return {.cpu_us = cpu / connections, .wall_us = wall.count() / connections};
}

// --- The way itself ------------------------------------------------------------------------------

double BySocket(int times) {
  processes::ChuteEnds ends;
  Must(processes::MakeChute(ends) == 0, "socketpair");
  const double before = CpuMicroseconds(RUSAGE_SELF);
  for (int i = 0; i < times; ++i) {
    processes::Given given{.fd = STDIN_FILENO};
    Must(processes::PutIn(ends.in, given) == 0, "sendmsg");
    Must(processes::TakeOut(ends.out, given) == 0, "recvmsg");
    close(given.fd);
  }
  return (CpuMicroseconds(RUSAGE_SELF) - before) / times;
}

// The sender puts the descriptor into a slot, sends it, and clears the slot. The receiver makes a
// descriptor of its slot, and clears that. Both do it by one system call.
double ByRing(int times) {
  io_uring from;
  io_uring to;
  Must(io_uring_queue_init(8, &from, 0) == 0 && io_uring_queue_init(8, &to, 0) == 0, "rings");
  Must(io_uring_register_files_sparse(&from, 1) == 0, "files");
  Must(io_uring_register_files_sparse(&to, 8) == 0, "files");
  const auto submit = [](io_uring& ring, unsigned count) {
    Must(io_uring_submit_and_wait(&ring, count) == static_cast<int>(count), "submit");
    int32_t first = 0;
    for (unsigned i = 0; i < count; ++i) {
      io_uring_cqe* cqe = nullptr;
      Must(io_uring_wait_cqe(&ring, &cqe) == 0 && cqe->res >= 0, "an operation");
      if (i == 0) first = cqe->res;
      io_uring_cqe_seen(&ring, cqe);
    }
    return first;
  };
  int fd = STDIN_FILENO;
  int none = -1;
  const double before = CpuMicroseconds(RUSAGE_SELF);
  for (int i = 0; i < times; ++i) {
    io_uring_sqe* sqe = io_uring_get_sqe(&from);
    io_uring_prep_files_update(sqe, &fd, 1, 0);
    sqe->flags |= IOSQE_IO_LINK;
    sqe = io_uring_get_sqe(&from);
    io_uring_prep_rw(IORING_OP_MSG_RING, sqe, to.ring_fd, nullptr, 0, 7);
    sqe->addr = 1;  // IORING_MSG_SEND_FD
    sqe->addr3 = 0;
    sqe->file_index = IORING_FILE_INDEX_ALLOC;
    sqe->flags |= IOSQE_IO_LINK;
    io_uring_prep_files_update(io_uring_get_sqe(&from), &none, 1, 0);
    submit(from, 3);
    io_uring_cqe* cqe = nullptr;
    Must(io_uring_wait_cqe(&to, &cqe) == 0 && cqe->res >= 0, "what was sent");
    const int slot = cqe->res;
    io_uring_cqe_seen(&to, cqe);
    sqe = io_uring_get_sqe(&to);
    sqe->opcode = 54;  // IORING_OP_FIXED_FD_INSTALL, Linux 6.8
    sqe->fd = slot;
    sqe->flags = IOSQE_FIXED_FILE | IOSQE_IO_LINK;
    sqe = io_uring_get_sqe(&to);
    io_uring_prep_close_direct(sqe, static_cast<unsigned>(slot));
    close(submit(to, 2));
  }
  const double cpu = (CpuMicroseconds(RUSAGE_SELF) - before) / times;
  io_uring_queue_exit(&from);
  io_uring_queue_exit(&to);
  return cpu;
}

int Main(int connections) {
  constexpr int kRounds = 5;
  std::array<std::vector<double>, 2> cpu;
  std::array<std::vector<double>, 2> wall;
  std::vector<double> socket;
  std::vector<double> ring;
  for (int round = 0; round < kRounds; ++round) {
    for (const bool given : {false, true}) {
      const Cost cost = Measure(given, connections);
      cpu[given].push_back(cost.cpu_us);
      wall[given].push_back(cost.wall_us);
    }
  }
  // Last, because rings interrupt this process's system calls when they end.
  for (int round = 0; round < kRounds; ++round) {
    socket.push_back(BySocket(10 * connections));
    ring.push_back(ByRing(10 * connections));
  }
  std::printf("a connection, median of %d times %d:\n", kRounds, connections);
  std::printf("  by a permit  %6.1f us CPU  %6.1f us until it is answered\n", Median(cpu[0]),
              Median(wall[0]));
  std::printf("  given        %6.1f us CPU  %6.1f us until it is answered\n", Median(cpu[1]),
              Median(wall[1]));
  std::printf("the way of a descriptor:\n");
  std::printf("  a Unix socket            %6.2f us CPU\n", Median(socket));
  std::printf("  IORING_OP_MSG_RING       %6.2f us CPU\n", Median(ring));
  return 0;
}

}  // namespace
}  // namespace ringmaster::testing

int main(int argc, char** argv) {
  signal(SIGPIPE, SIG_IGN);
  return ringmaster::testing::Main(argc > 1 ? std::atoi(argv[1]) : 2'000);
}
