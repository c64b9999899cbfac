// As reuseport, but a program in the kernel picks the worker with the fewest connections, ties in
// turn. It is a BPF_PROG_TYPE_SK_REUSEPORT (Linux 4.19), assembled here by hand. It keeps a count
// for each worker in a map that the workers have mapped into their memory. The program adds one
// when it picks. The worker takes one off when a connection ends, without a system call. So what
// waits in a worker's queue counts, too, and a worker that is stuck is avoided as soon as its count
// is higher.
//
// What its real-world counterparts do: Alibaba's Hermes lets workers publish their state in a map,
// and a program hashes over those that are well. Raptor chooses between two at random, by their
// counts. This one knows more than either at the moment of its choice. No such program can change
// its mind. What it has given to a worker that then stops is not taken back. What waits in the
// queue of a listener that is closed is reset. A first packet that is sent again, because a queue
// was full, is counted twice.
//
// Needs CAP_BPF and CAP_NET_ADMIN.

#include <linux/bpf.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <cerrno>
#include <cstdint>
#include <cstring>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "bench/mechanism.h"
#include "bench/mechanisms/listener_server.h"
#include "bench/mechanisms/mechanisms.h"
#include "bench/mechanisms/reuseport_listeners.h"

namespace ringmaster::bench {
namespace {

// What program and workers share.
struct Counts {
  std::array<std::atomic<uint64_t>, kWorkersMax> open;  // by worker, from its choice to its close
  std::atomic<uint64_t> turns;                          // so that ties rotate
};

// A worker that has left never has the fewest again.
constexpr uint64_t kLeft = uint64_t{1} << 32;

constexpr char kLicence[] = "MIT";
constexpr int kPass = 1;  // SK_PASS
constexpr int kLoadTriesMax = 5;

long Bpf(bpf_cmd command, bpf_attr& attributes) {
  return syscall(SYS_bpf, command, &attributes, sizeof(attributes));
}

int MakeMap(bpf_map_type type, uint32_t value_size, uint32_t entries, uint32_t flags) {
  bpf_attr attributes{};
  attributes.map_type = type;
  attributes.key_size = sizeof(uint32_t);
  attributes.value_size = value_size;
  attributes.max_entries = entries;
  attributes.map_flags = flags;
  return static_cast<int>(Bpf(BPF_MAP_CREATE, attributes));
}

int LoadProgram(const std::vector<bpf_insn>& code) {
  bpf_attr attributes{};
  attributes.prog_type = BPF_PROG_TYPE_SK_REUSEPORT;
  attributes.insns = reinterpret_cast<uintptr_t>(code.data());
  attributes.insn_cnt = static_cast<uint32_t>(code.size());
  attributes.license = reinterpret_cast<uintptr_t>(kLicence);
  // The verifier gives up with EAGAIN when a signal comes or it is asked to yield; that passes.
  long fd = -1;
  for (int tries = 0; tries < kLoadTriesMax; ++tries) {
    fd = Bpf(BPF_PROG_LOAD, attributes);
    if (fd >= 0 || errno != EAGAIN) break;
  }
  return static_cast<int>(fd);
}

bpf_insn Instruction(int code, int to, int from, int offset, int immediate) {
  bpf_insn instruction{};
  instruction.code = static_cast<uint8_t>(code);
  instruction.dst_reg = static_cast<uint8_t>(to & 0xf);
  instruction.src_reg = static_cast<uint8_t>(from & 0xf);
  instruction.off = static_cast<int16_t>(offset);
  instruction.imm = immediate;
  return instruction;
}

// The program's few words. Registers by number. 0 is the result, 1 to 5 are the arguments of a
// call, 6 to 9 survive one, and 10 is the end of the stack.
class Assembler {
 public:
  void Set(int to, int value) { Add(BPF_ALU64 | BPF_MOV | BPF_K, to, 0, 0, value); }
  void Move(int to, int from) { Add(BPF_ALU64 | BPF_MOV | BPF_X, to, from, 0, 0); }
  void Apply(int operation, int to, int value) {
    Add(BPF_ALU64 | operation | BPF_K, to, 0, 0, value);
  }
  void ApplyRegister(int operation, int to, int from) {
    Add(BPF_ALU64 | operation | BPF_X, to, from, 0, 0);
  }
  void Load(int to, int base, int offset) { Add(BPF_LDX | BPF_MEM | BPF_DW, to, base, offset, 0); }
  void StoreWord(int base, int offset, int from) {
    Add(BPF_STX | BPF_MEM | BPF_W, base, from, offset, 0);
  }
  // Adds `from` to memory; with `fetch` it receives what was there before.
  void AtomicAdd(int base, int offset, int from, bool fetch) {
    Add(BPF_STX | BPF_ATOMIC | BPF_DW, base, from, offset, BPF_ADD | (fetch ? BPF_FETCH : 0));
  }
  // The map itself, or where its only value lies.
  void LoadMap(int to, int map_fd, bool value) {
    Add(BPF_LD | BPF_DW | BPF_IMM, to, value ? BPF_PSEUDO_MAP_VALUE : BPF_PSEUDO_MAP_FD, 0, map_fd);
    Add(0, 0, 0, 0, 0);
  }
  void SkipIfNotLess(int a, int b, int instructions) {
    Add(BPF_JMP | BPF_JGE | BPF_X, a, b, instructions, 0);
  }
  void Call(int helper) { Add(BPF_JMP | BPF_CALL, 0, 0, 0, helper); }
  void Exit() { Add(BPF_JMP | BPF_EXIT, 0, 0, 0, 0); }

  const std::vector<bpf_insn>& code() const { return code_; }

 private:
  void Add(int code, int to, int from, int offset, int immediate) {
    code_.push_back(Instruction(code, to, from, offset, immediate));
  }

  std::vector<bpf_insn> code_;
};

// Picks the least of  count << 16 | place in turn << 8 | worker  and adds one to its count.
std::vector<bpf_insn> LeastLoadedProgram(int counts_fd, int listeners_fd, int workers) {
  constexpr int kContext = 6, kCounts = 7, kLeast = 8, kTurn = 9;
  constexpr int kKeyOffset = -8;
  Assembler assembler;
  assembler.Move(kContext, 1);
  assembler.LoadMap(kCounts, counts_fd, true);
  assembler.Set(kTurn, 1);
  assembler.AtomicAdd(kCounts, offsetof(Counts, turns), kTurn, true);
  assembler.Set(kLeast, -1);
  for (int worker = 0; worker < workers; ++worker) {
    assembler.Load(2, kCounts, worker * static_cast<int>(sizeof(uint64_t)));
    assembler.Apply(BPF_LSH, 2, 16);
    assembler.Move(3, kTurn);
    assembler.Apply(BPF_ADD, 3, worker);
    assembler.Apply(BPF_MOD, 3, workers);
    assembler.Apply(BPF_LSH, 3, 8);
    assembler.Apply(BPF_OR, 3, worker);
    assembler.ApplyRegister(BPF_OR, 2, 3);
    assembler.SkipIfNotLess(2, kLeast, 1);
    assembler.Move(kLeast, 2);
  }
  assembler.Apply(BPF_AND, kLeast, kWorkersMax - 1);
  assembler.StoreWord(10, kKeyOffset, kLeast);
  assembler.Apply(BPF_LSH, kLeast, 3);
  assembler.ApplyRegister(BPF_ADD, kCounts, kLeast);
  assembler.Set(1, 1);
  assembler.AtomicAdd(kCounts, 0, 1, false);
  assembler.Move(1, kContext);
  assembler.LoadMap(2, listeners_fd, false);
  assembler.Move(3, 10);
  assembler.Apply(BPF_ADD, 3, kKeyOffset);
  assembler.Set(4, 0);
  assembler.Call(BPF_FUNC_sk_select_reuseport);
  // If the listener was closed just now, the kernel's hash picks another.
  assembler.Set(0, kPass);
  assembler.Exit();
  return assembler.code();
}
static_assert((kWorkersMax & (kWorkersMax - 1)) == 0);

// Maps, program and what the workers see of them; closed and unmapped at the end.
class Chooser {
 public:
  Chooser() = default;
  Chooser(const Chooser&) = delete;
  Chooser& operator=(const Chooser&) = delete;
  ~Chooser() {
    if (counts_ != nullptr) munmap(counts_, sizeof(Counts));
    for (const int fd : {counts_fd_, listeners_fd_, program_fd_}) {
      if (fd >= 0) close(fd);
    }
  }

  // Of listeners that listen, in the workers' order.
  absl::Status Attach(const std::vector<int>& listeners) {
    counts_fd_ = MakeMap(BPF_MAP_TYPE_ARRAY, sizeof(Counts), 1, BPF_F_MMAPABLE);
    if (counts_fd_ < 0) return absl::ErrnoToStatus(errno, "cannot make a BPF map of counts");
    void* const memory =
        mmap(nullptr, sizeof(Counts), PROT_READ | PROT_WRITE, MAP_SHARED, counts_fd_, 0);
    if (memory == MAP_FAILED) return absl::ErrnoToStatus(errno, "cannot map the counts");
    counts_ = static_cast<Counts*>(memory);
    listeners_fd_ = MakeMap(BPF_MAP_TYPE_REUSEPORT_SOCKARRAY, sizeof(uint64_t),
                            static_cast<uint32_t>(listeners.size()), 0);
    if (listeners_fd_ < 0) return absl::ErrnoToStatus(errno, "cannot make a BPF map of listeners");
    for (uint32_t i = 0; i < listeners.size(); ++i) {
      const auto listener = static_cast<uint64_t>(listeners[i]);
      bpf_attr attributes{};
      attributes.map_fd = static_cast<uint32_t>(listeners_fd_);
      attributes.key = reinterpret_cast<uintptr_t>(&i);
      attributes.value = reinterpret_cast<uintptr_t>(&listener);
      if (Bpf(BPF_MAP_UPDATE_ELEM, attributes) != 0) {
        return absl::ErrnoToStatus(errno, "cannot put a listener into a BPF map");
      }
    }
    program_fd_ = LoadProgram(
        LeastLoadedProgram(counts_fd_, listeners_fd_, static_cast<int>(listeners.size())));
    if (program_fd_ < 0) return absl::ErrnoToStatus(errno, "cannot load a BPF program");
    if (setsockopt(listeners.front(), SOL_SOCKET, SO_ATTACH_REUSEPORT_EBPF, &program_fd_,
                   sizeof(program_fd_)) != 0) {
      return absl::ErrnoToStatus(errno, "cannot attach a BPF program to the listeners");
    }
    return absl::OkStatus();
  }

  // On a worker's thread. Counts that order nothing.
  void OnClosed(uint32_t worker) { counts_->open[worker].fetch_sub(1, std::memory_order_relaxed); }
  void OnLeave(uint32_t worker) {
    counts_->open[worker].fetch_add(kLeft, std::memory_order_relaxed);
  }

 private:
  int counts_fd_ = -1;
  int listeners_fd_ = -1;
  int program_fd_ = -1;
  Counts* counts_ = nullptr;
};

class ReusePortEbpf : public Mechanism {
 public:
  std::string name() const override { return "reuseport-ebpf"; }
  std::string summary() const override {
    return "as reuseport, but a BPF program picks the worker with the fewest connections";
  }
  std::string WhyNot(Transport transport) const override {
    if (std::string why = WhyNoReusePort(transport); !why.empty()) return why;
    Assembler least;
    least.Set(0, kPass);
    least.Exit();
    const int fd = LoadProgram(least.code());
    if (fd < 0) {
      return absl::StrCat("bpf(2) does not load a program (", strerrorname_np(errno),
                          "); it takes Linux 4.19 and CAP_BPF and CAP_NET_ADMIN: run it as root");
    }
    close(fd);
    return "";
  }
  bool shares_port() const override { return true; }
  absl::StatusOr<std::unique_ptr<Server>> Start(const ServerOptions& options) const override {
    absl::StatusOr<std::vector<int>> listeners =
        MakeReusePortListeners(options, options.workers.size());
    if (!listeners.ok()) return listeners.status();
    auto chooser = std::make_shared<Chooser>();
    // Its counts must be there before a worker runs. From the start of the server on the workers
    // own the listeners.
    if (absl::Status status = chooser->Attach(*listeners); !status.ok()) {
      for (const int fd : *listeners) close(fd);
      return status;
    }
    return StartListenerServer(
        options, {.own_listeners = *listeners,
                  .on_closed = [chooser](uint32_t worker) { chooser->OnClosed(worker); },
                  .on_leave = [chooser](uint32_t worker) { chooser->OnLeave(worker); }});
  }
};

}  // namespace

std::unique_ptr<Mechanism> MakeReusePortEbpf() { return std::make_unique<ReusePortEbpf>(); }

}  // namespace ringmaster::bench
