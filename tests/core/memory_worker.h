// A worker in memory: the shared half of the books without a ring or a thread.

#ifndef RINGMASTER_TESTS_CORE_MEMORY_WORKER_H_
#define RINGMASTER_TESTS_CORE_MEMORY_WORKER_H_

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <limits>
#include <memory>
#include <new>
#include <vector>

#include "core/inbox.h"
#include "core/port_state.h"

namespace ringmaster::core {

// Zeroed, aligned memory for an inbox.
class InboxStorage {
 public:
  explicit InboxStorage(uint32_t words) : bytes_(Inbox::BytesFor(words)) {
    data_.reset(static_cast<std::byte*>(::operator new (bytes_, std::align_val_t{kCacheLine})));
    Wipe();
  }
  void* data() { return data_.get(); }
  void Wipe() { std::memset(data_.get(), 0, bytes_); }

 private:
  struct FreeAligned {
    void operator()(std::byte* data) const {
      ::operator delete (data, std::align_val_t{kCacheLine});
    }
  };
  size_t bytes_;
  std::unique_ptr<std::byte, FreeAligned> data_;
};

class MemoryWorker {
 public:
  explicit MemoryWorker(uint32_t window)
      : storage_(Inbox::WordsFor(window)), inbox_(storage_.data(), Inbox::WordsFor(window)) {}

  Inbox& inbox() { return inbox_; }
  PortState& state() { return state_; }
  Tally& tally() { return tally_; }

  // A whole claim; appends the descriptors to `fds` unless it is null. Returns whether it knocks.
  bool Claim(Hunger& hunger, std::vector<int32_t>* fds = nullptr,
             size_t connections_max = std::numeric_limits<size_t>::max()) {
    inbox_.Begin();
    for (size_t i = 0; i < connections_max && TakeOne(fds); ++i) {
    }
    return hunger.TakeKnock();
  }

  // Inside a claim: the next offer, if any.
  bool TakeOne(std::vector<int32_t>* fds = nullptr) {
    const uint64_t word = inbox_.Take();
    if (word != 0 && fds != nullptr) fds->push_back(Offer::FromWord(word).fd);
    return word != 0;
  }

  // The end of a lease. Returns whether it knocks.
  bool Release(Hunger& hunger) {
    state_.Release();
    return hunger.TakeKnockOfLease();
  }

 private:
  InboxStorage storage_;
  Inbox inbox_;
  PortState state_;
  Tally tally_;
};

}  // namespace ringmaster::core

#endif  // RINGMASTER_TESTS_CORE_MEMORY_WORKER_H_
