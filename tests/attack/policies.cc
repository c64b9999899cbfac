// Every built-in policy behind one that checks what it is shown. Where the world asks for it, that
// one is hostile: it throws, picks beyond the candidates, calls the balancer and is slow.

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <memory>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "attack/checks.h"
#include "attack/world.h"

namespace ringmaster::attack {
namespace {

class CheckedPolicy final : public Policy {
 public:
  CheckedPolicy(World& world, std::unique_ptr<Policy> inner, bool hostile, uint64_t seed)
      : world_(world), inner_(std::move(inner)), hostile_(hostile), random_(seed) {}

  std::string name() const override { return inner_->name(); }
  FactsNeeded facts() const override { return inner_->facts(); }
  bool AnyThread() const override { return inner_->AnyThread(); }

  void Prepare(uint32_t worker_slots) override {
    const Alone alone(busy_);
    if (worker_slots < slots_) Fail("a policy is prepared for fewer workers than before");
    slots_ = worker_slots;
    inner_->Prepare(worker_slots);
  }

  size_t Pick(const Arrival& arrival, const View& view) override {
    const Alone alone(busy_);
    CheckView(view);
    if (hostile_) {
      switch (random_.Below(24)) {
        case 0:
          throw std::runtime_error("hostile");
        case 1:
          return view.candidates.size() + random_.Below(3);
        case 2:
          return kNobodyNow;
        case 3:
          CallTheBalancer();
          break;
        case 4:
          return random_.Below(view.candidates.size());
        default:
          break;
      }
    }
    const size_t picked = inner_->Pick(arrival, view);
    if (picked >= view.candidates.size()) Fail("%s picks beyond the candidates", name().c_str());
    return picked;
  }

  void OnRecall(uint32_t worker) override {
    const Alone alone(busy_);
    if (worker >= slots_) Fail("OnRecall of worker %u of %u", worker, slots_);
    inner_->OnRecall(worker);
    if (hostile_ && random_.OneIn(4)) throw 17;
  }

  bool MayMove(const Arrival& arrival, const Candidate& from, const Candidate& to) const override {
    if (from.worker == to.worker) Fail("a policy is asked about a move to the same worker");
    if (!to.idle() || to.unclaimed > 0) Fail("a policy is asked about a move to one that is busy");
    if (hostile_ && from.open % 8 == 7) throw std::runtime_error("hostile");
    return inner_->MayMove(arrival, from, to) || hostile_;
  }

  void OnLeave(uint32_t worker) override {
    const Alone alone(busy_);
    if (worker >= slots_) Fail("OnLeave of worker %u of %u", worker, slots_);
    inner_->OnLeave(worker);
    if (hostile_ && random_.OneIn(4)) throw std::runtime_error("hostile");
  }

 private:
  // Policies are called by one thread at a time, never re-entrantly.
  class Alone {
   public:
    explicit Alone(std::atomic<bool>& busy) : busy_(busy) {
      if (busy_.exchange(true)) Fail("a policy is called while it is called");
    }
    ~Alone() { busy_.store(false); }
    Alone(const Alone&) = delete;
    Alone& operator=(const Alone&) = delete;

   private:
    std::atomic<bool>& busy_;
  };

  void CheckView(const View& view) const {
    if (view.candidates.empty()) Fail("a policy is asked without a candidate");
    if (view.topology == nullptr) Fail("a policy is asked without a topology");
    if (!std::is_sorted(view.joined.begin(), view.joined.end())) Fail("joined is not sorted");
    int64_t last = -1;
    for (const Candidate& candidate : view.candidates) {
      if (candidate.worker <= last) Fail("candidates are not sorted");
      last = candidate.worker;
      if (candidate.worker >= slots_) Fail("worker %u of %u", candidate.worker, slots_);
      if (candidate.credit == 0) Fail("a candidate without credit");
      if (candidate.still_ns < 0)
        Fail("a candidate is still for %lld ns", static_cast<long long>(candidate.still_ns));
      if (!std::binary_search(view.joined.begin(), view.joined.end(), candidate.worker))
        Fail("a candidate has not joined");
    }
  }

  void CallTheBalancer() {
    Balancer* const balancer = world_.for_callbacks.load();
    if (balancer == nullptr) return;
    const auto record = world_.AnySource(random_);
    Call call("calls of a policy");
    ExpectError(call, balancer->Stats().status, absl::StatusCode::kFailedPrecondition);
    ExpectError(call, balancer->Shutdown(absl::ZeroDuration()).status,
                absl::StatusCode::kFailedPrecondition);
    if (world_.config.host != Host::kThread)
      ExpectError(call, balancer->RunOnce(), absl::StatusCode::kFailedPrecondition);
    Expect(call, balancer->AddWorker({.ring_fd = 0}).status(),
           {absl::StatusCode::kFailedPrecondition, absl::StatusCode::kInvalidArgument});
    if (record != nullptr)
      ExpectError(call, record->handle.Resume(), absl::StatusCode::kFailedPrecondition);
    (void)balancer->Ended();
    Port spare = world_.TakeSparePort(random_);
    spare.Leave();
    if (world_.config.ends_early && !world_.calm && random_.OneIn(10)) {
      world_.ending.store(true);
      Expect(call, balancer->BeginShutdown(), {});
    }
  }

  World& world_;
  const std::unique_ptr<Policy> inner_;
  const bool hostile_;
  Random random_;
  uint32_t slots_ = 0;
  std::atomic<bool> busy_{false};
};

}  // namespace

std::unique_ptr<Policy> DrawPolicy(World& world, Random& random) {
  if (random.OneIn(16)) return nullptr;  // the default, where options are given
  std::unique_ptr<Policy> policy;
  do {
    policy = PolicyByName(PolicyNames()[random.Below(PolicyNames().size())]).value();
  } while (world.config.aims && !policy->AnyThread() && !random.OneIn(6));
  return std::make_unique<CheckedPolicy>(
      world, std::move(policy), world.config.hostile_policies && !world.calm, random.Next());
}

}  // namespace ringmaster::attack
