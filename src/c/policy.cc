#include "ringmaster/policy.h"

#include <algorithm>
#include <cstddef>
#include <iterator>
#include <memory>
#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "c/callbacks.h"
#include "c/handles.h"
#include "c/result.h"
#include "c/structs.h"
#include "ringmaster/ringmaster.h"

namespace ringmaster::c {
namespace {

// A policy in C is shown the very candidates and CPUs that one in C++ is shown.
static_assert(sizeof(Candidate) == sizeof(ringmaster_candidate) &&
              offsetof(Candidate, worker) == offsetof(ringmaster_candidate, worker) &&
              offsetof(Candidate, open) == offsetof(ringmaster_candidate, open) &&
              offsetof(Candidate, unclaimed) == offsetof(ringmaster_candidate, unclaimed) &&
              offsetof(Candidate, credit) == offsetof(ringmaster_candidate, credit) &&
              offsetof(Candidate, cpu) == offsetof(ringmaster_candidate, cpu) &&
              offsetof(Candidate, still_ns) == offsetof(ringmaster_candidate, still_ns) &&
              offsetof(Candidate, activity) == offsetof(ringmaster_candidate, activity) &&
              sizeof(Candidate::activity) == sizeof(ringmaster_candidate::activity) &&
              offsetof(Candidate, on_host) == offsetof(ringmaster_candidate, on_host) &&
              sizeof(Candidate::on_host) == sizeof(ringmaster_candidate::on_host));
static_assert(sizeof(CpuTopology::Cpu) == sizeof(ringmaster_cpu) &&
              offsetof(CpuTopology::Cpu, core) == offsetof(ringmaster_cpu, core) &&
              offsetof(CpuTopology::Cpu, cache) == offsetof(ringmaster_cpu, cache) &&
              offsetof(CpuTopology::Cpu, node) == offsetof(ringmaster_cpu, node));
static_assert(static_cast<int>(Activity::kIdle) == RINGMASTER_ACTIVITY_IDLE &&
              static_cast<int>(Activity::kClaiming) == RINGMASTER_ACTIVITY_CLAIMING &&
              static_cast<int>(Activity::kBusy) == RINGMASTER_ACTIVITY_BUSY);
static_assert(static_cast<int>(Peer::Kind::kUnknown) == RINGMASTER_PEER_UNKNOWN &&
              static_cast<int>(Peer::Kind::kIpv4) == RINGMASTER_PEER_IPV4 &&
              static_cast<int>(Peer::Kind::kIpv6) == RINGMASTER_PEER_IPV6 &&
              static_cast<int>(Peer::Kind::kUnix) == RINGMASTER_PEER_UNIX);
static_assert(sizeof(Peer::address) == sizeof(ringmaster_arrival::peer_address));
static_assert(Policy::kNobodyNow == RINGMASTER_NOBODY_NOW);

const ringmaster_candidate* CandidatesOf(const Candidate* candidates) {
  return reinterpret_cast<const ringmaster_candidate*>(candidates);
}

ringmaster_arrival Translate(const Arrival& from) {
  ringmaster_arrival to{};
  to.struct_size = sizeof(to);
  to.incoming_cpu = from.incoming_cpu;
  to.request_waits = from.request_waits;
  to.peer_kind = static_cast<int>(from.peer.kind);
  to.peer_port = from.peer.port;
  std::copy(from.peer.address.begin(), from.peer.address.end(), to.peer_address);
  return to;
}

ringmaster_view Translate(const View& from) {
  return {.struct_size = sizeof(ringmaster_view),
          .candidates = CandidatesOf(from.candidates.data()),
          .candidate_count = from.candidates.size(),
          .joined = from.joined.data(),
          .joined_count = from.joined.size(),
          .cpus = reinterpret_cast<const ringmaster_cpu*>(from.topology->cpus.data()),
          .cpu_count = from.topology->cpus.size()};
}

ringmaster_policy_functions NoFunctions() {
  ringmaster_policy_functions functions{};
  functions.struct_size = sizeof(functions);
  functions.name = "own";
  return functions;
}

absl::Status Check(const ringmaster_policy_functions& functions) {
  absl::Status status = CheckYesOrNo({{"needs_incoming_cpu", functions.needs_incoming_cpu},
                                      {"needs_peer", functions.needs_peer},
                                      {"any_thread", functions.any_thread}});
  status.Update(CheckReserved(functions.reserved));
  if (!status.ok()) return status;
  if (functions.pick == nullptr) {
    return absl::InvalidArgumentError("pick is null: without it a policy decides nothing");
  }
  const bool needs_facts = functions.needs_incoming_cpu != 0 || functions.needs_peer != 0;
  if (functions.any_thread != 0 && needs_facts) {
    return absl::InvalidArgumentError(
        "any_thread is set beside needs_incoming_cpu or needs_peer: threads of workers ask before "
        "a connection comes, when there are no facts of it. Leave one of them alone");
  }
  if ((functions.save == nullptr) != (functions.load == nullptr)) {
    return absl::InvalidArgumentError(
        "of save and load one alone is set: what one writes the other reads, so set both or none");
  }
  return absl::OkStatus();
}

}  // namespace

// A policy whose functions are the program's.
class OwnPolicy final : public Policy {
 public:
  OwnPolicy(const ringmaster_policy_functions& functions, std::string name)
      : functions_(functions), name_(std::move(name)) {}
  ~OwnPolicy() override {
    const InCallback in_callback(balancer_);
    if (functions_.destroy != nullptr) functions_.destroy(functions_.context);
  }

  // Before it is given to a source of that balancer.
  void SetBalancer(const ringmaster_balancer* balancer) { balancer_ = balancer; }

  std::string name() const override { return name_; }
  FactsNeeded facts() const override {
    return {.incoming_cpu = functions_.needs_incoming_cpu != 0, .peer = functions_.needs_peer != 0};
  }
  bool AnyThread() const override { return functions_.any_thread != 0; }
  void Prepare(uint32_t worker_slots) override {
    const InCallback in_callback(balancer_);
    if (functions_.prepare != nullptr) functions_.prepare(functions_.context, worker_slots);
  }
  size_t Pick(const Arrival& arrival, const View& view) override {
    const ringmaster_arrival arrival_in_c = Translate(arrival);
    const ringmaster_view view_in_c = Translate(view);
    const InCallback in_callback(balancer_);
    return functions_.pick(functions_.context, &arrival_in_c, &view_in_c);
  }
  void OnRecall(uint32_t worker) override {
    const InCallback in_callback(balancer_);
    if (functions_.on_recall != nullptr) functions_.on_recall(functions_.context, worker);
  }
  bool MayMove(const Arrival& arrival, const Candidate& from, const Candidate& to) const override {
    if (functions_.may_move == nullptr) return false;
    const ringmaster_arrival arrival_in_c = Translate(arrival);
    const InCallback in_callback(balancer_);
    return functions_.may_move(functions_.context, &arrival_in_c, CandidatesOf(&from),
                               CandidatesOf(&to)) != 0;
  }
  void OnLeave(uint32_t worker) override {
    const InCallback in_callback(balancer_);
    if (functions_.on_leave != nullptr) functions_.on_leave(functions_.context, worker);
  }
  bool Save(Span<uint64_t> words) const override {
    const InCallback in_callback(balancer_);
    return functions_.save != nullptr &&
           functions_.save(functions_.context, words.data(), words.size()) != 0;
  }
  bool Load(Span<const uint64_t> words) override {
    const InCallback in_callback(balancer_);
    return functions_.load != nullptr &&
           functions_.load(functions_.context, words.data(), words.size()) != 0;
  }

 private:
  const ringmaster_policy_functions functions_;
  const std::string name_;
  const ringmaster_balancer* balancer_ = nullptr;  // only its address counts
};

std::unique_ptr<Policy> TakePolicy(ringmaster_policy* given, const ringmaster_balancer* balancer) {
  if (given == nullptr) return nullptr;
  const std::unique_ptr<ringmaster_policy> handle(given);
  if (handle->own != nullptr) handle->own->SetBalancer(balancer);
  return std::move(handle->policy);
}

}  // namespace ringmaster::c

using ringmaster::c::Do;

int ringmaster_policy_by_name(const char* name, ringmaster_policy** policy) {
  return Do({{"name", name}, {"policy", policy}}, [&]() -> absl::Status {
    absl::StatusOr<std::unique_ptr<ringmaster::Policy>> made = ringmaster::PolicyByName(name);
    if (!made.ok()) return made.status();
    std::string its_name = (*made)->name();
    *policy = new ringmaster_policy{*std::move(made), nullptr, std::move(its_name)};
    return absl::OkStatus();
  });
}

const char* ringmaster_policy_names(size_t position) {
  const auto names = ringmaster::PolicyNames();
  return position < names.size() ? names[position].data() : nullptr;  // of string literals
}

int ringmaster_policy_functions_init(ringmaster_policy_functions* functions, size_t struct_size) {
  return Do({{"functions", functions}}, [&] {
    return ringmaster::c::Write("ringmaster_policy_functions", ringmaster::c::NoFunctions(),
                                struct_size, functions);
  });
}

int ringmaster_policy_create(const ringmaster_policy_functions* functions,
                             ringmaster_policy** policy) {
  return Do({{"functions", functions}, {"policy", policy}}, [&]() -> absl::Status {
    ringmaster_policy_functions copy = ringmaster::c::NoFunctions();
    absl::Status status = ringmaster::c::Read("ringmaster_policy_functions", functions, &copy);
    status.Update(ringmaster::c::Check(copy));
    if (!status.ok()) return status;
    auto handle = std::make_unique<ringmaster_policy>();
    handle->name = copy.name == nullptr ? "own" : copy.name;
    auto own = std::make_unique<ringmaster::c::OwnPolicy>(copy, handle->name);
    handle->own = own.get();
    handle->policy = std::move(own);
    *policy = handle.release();
    return absl::OkStatus();
  });
}

const char* ringmaster_policy_name(const ringmaster_policy* policy) {
  return policy == nullptr ? nullptr : policy->name.c_str();
}

int ringmaster_policy_free(ringmaster_policy* policy) {
  return Do([&] {
    delete policy;
    return 0;
  });
}
