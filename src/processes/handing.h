// Handing: the parent's side of what it gives to its workers: the chutes of all places, listeners
// at which the parent accepts, and what it holds. Who gets what is decided in dealing.h.
//
// Threads: its owner's lock is held in each call.

#ifndef RINGMASTER_SRC_PROCESSES_HANDING_H_
#define RINGMASTER_SRC_PROCESSES_HANDING_H_

#include <array>
#include <cstdint>
#include <memory>
#include <vector>

#include "absl/status/status.h"
#include "processes/area.h"
#include "processes/dealing.h"
#include "processes/keeper.h"
#include "processes/shared.h"
#include "ringmaster/policy.h"

namespace ringmaster::internal {

class Handing final : private processes::ChuteKernel {
 public:
  struct Limits {
    uint32_t lying = 0;  // in one chute
    uint32_t held = 0;
  };

  // `shared` has no chutes yet. Both are borrowed.
  Handing(ProcessShared& shared, processes::Keeper& keeper, std::unique_ptr<Policy> policy,
          Limits limits);
  // In a forked child it closes that child's copies.
  ~Handing() override;
  Handing(const Handing&) = delete;
  Handing& operator=(const Handing&) = delete;

  absl::Status SetUp();

  absl::Status AddListener(int listen_fd, uint64_t token);
  // `facts`: null: they are read. If it fails, `fd` stays the caller's.
  absl::Status Give(int fd, uint64_t token, const Arrival* facts);

  // KeeperEvents.
  void OnReady(uint32_t number);
  void OnGone(uint32_t worker);
  void OnBell() { Go(); }
  int OnLook(int64_t now_ms);

  // Wakes a worker, so that it puts right what stands in the area of it.
  void Ask(uint32_t worker);
  // Closes the listeners.
  void StopAccepting();
  // Whether nothing is held and nothing lies in a chute. What is held is dealt to whoever can get
  // it.
  bool Settle();

  size_t held() const { return dealing_.held(); }
  uint32_t LyingWith(uint32_t worker) { return dealing_.LyingWith(worker); }
  const processes::DealingCounts& counts() const { return dealing_.counts(); }

 private:
  struct Accepted {
    int fd = -1;
    uint64_t token = 0;
    bool armed = false;
  };

  int Put(uint32_t worker, const processes::Given& given) override;
  int Take(uint32_t worker, processes::Given& given) override;
  uint32_t Lying(uint32_t worker) override;
  uint64_t Number(uint32_t worker) override;
  void Mark(uint32_t worker) override { keeper_.Mark(worker); }
  void Nudge(uint32_t worker) override;
  int64_t NowNs() override;

  void Go();
  void Accept(Accepted& listener);
  void Arm(bool accepts);
  void WatchRoom(bool watches);
  void MakeAnew(uint32_t worker);
  bool MayAccept();

  ProcessShared& shared_;
  processes::Keeper& keeper_;
  const Limits limits_;
  processes::Dealing dealing_;
  const uint8_t facts_;  // what the policy needs, as core::kFact bits
  std::array<int, processes::kWorkersMax> ins_;
  std::vector<Accepted> listeners_;
  bool watches_room_ = false;
  int64_t short_until_ms_ = 0;  // of descriptors
};

}  // namespace ringmaster::internal

#endif  // RINGMASTER_SRC_PROCESSES_HANDING_H_
