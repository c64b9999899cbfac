// A worker in memory: what a worker shares with one master, without a ring or a thread. For the
// simulator, the tests and the micro-benchmarks.

#ifndef RINGMASTER_SRC_SIM_MEMORY_WORKER_H_
#define RINGMASTER_SRC_SIM_MEMORY_WORKER_H_

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <limits>
#include <memory>
#include <new>
#include <vector>

#include "core/claim.h"
#include "core/inbox.h"
#include "core/port_state.h"

namespace ringmaster::sim {

// Zeroed, aligned memory for an inbox.
class InboxStorage {
 public:
  explicit InboxStorage(uint32_t words) : bytes_(core::Inbox::BytesFor(words)) {
    data_.reset(
        static_cast<std::byte*>(::operator new (bytes_, std::align_val_t{core::kCacheLine})));
    Wipe();
  }
  std::byte* data() { return data_.get(); }
  void Wipe() { std::memset(data_.get(), 0, bytes_); }

 private:
  struct FreeAligned {
    void operator()(std::byte* data) const {
      ::operator delete (data, std::align_val_t{core::kCacheLine});
    }
  };
  size_t bytes_;
  std::unique_ptr<std::byte, FreeAligned> data_;
};

// An inbox with its memory.
struct MemoryInbox {
  explicit MemoryInbox(uint32_t window)
      : storage(core::Inbox::WordsFor(window)),
        inbox(storage.data(), core::Inbox::WordsFor(window)) {}
  InboxStorage storage;
  core::Inbox inbox;
};

class MemoryWorker {
 public:
  explicit MemoryWorker(uint32_t window) : box_(window), claimer_(&state_, {&box_.inbox}) {}

  core::Inbox& inbox() { return box_.inbox; }
  core::PortState& state() { return state_; }
  core::Tally& tally() { return tally_; }

  // A whole claim; appends the descriptors to `fds` unless it is null. Returns whether it knocks.
  bool Claim(core::Hunger& hunger, std::vector<int32_t>* fds = nullptr,
             size_t connections_max = std::numeric_limits<size_t>::max()) {
    claimer_.Begin(/*on_host=*/false);
    for (size_t i = 0; i < connections_max; ++i) {
      const uint64_t word = claimer_.Take().word;
      if (word == 0) break;
      if (fds != nullptr) fds->push_back(core::Offer::FromWord(word).fd);
    }
    claimer_.End();
    return claimer_.KnocksAtEnd() && hunger.HearKnock();
  }

  // A whole claim whose connections are over at once. Returns how many there were.
  uint32_t ClaimAll(core::Hunger& hunger) {
    uint32_t claimed = 0;
    claimer_.Begin(/*on_host=*/false);
    for (; claimer_.Take().word != 0; ++claimed) state_.Release();
    claimer_.End();
    if (claimer_.KnocksAtEnd()) hunger.HearKnock();
    return claimed;
  }

  // Around its wait, if it gives hints. Whether it knocks.
  bool BeforeWait(core::Hunger& hunger) {
    state_.SayWaiting();
    return hunger.HearKnockOfWaiter();
  }
  void AfterWait() { state_.SayBusy(); }

  // Inside a claim that the test has begun at the inbox: the next offer, if any.
  bool TakeOne(std::vector<int32_t>* fds = nullptr) {
    const uint64_t word = box_.inbox.Claim();
    if (word != 0 && fds != nullptr) fds->push_back(core::Offer::FromWord(word).fd);
    return word != 0;
  }

  // The end of a lease. Returns whether it knocks.
  bool Release(core::Hunger& hunger) {
    state_.Release();
    return hunger.HearKnockOfLease();
  }

 private:
  MemoryInbox box_;
  core::PortState state_;
  core::Tally tally_;
  core::Claimer claimer_;
};

}  // namespace ringmaster::sim

#endif  // RINGMASTER_SRC_SIM_MEMORY_WORKER_H_
