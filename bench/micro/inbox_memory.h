// An inbox in memory of its own, with a worker's end beside it.

#ifndef RINGMASTER_BENCH_MICRO_INBOX_MEMORY_H_
#define RINGMASTER_BENCH_MICRO_INBOX_MEMORY_H_

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <memory>
#include <new>

#include "core/inbox.h"
#include "core/port_state.h"

namespace ringmaster::bench {

class InboxMemory {
 public:
  explicit InboxMemory(uint32_t window)
      : storage_(Allocate(core::Inbox::BytesFor(core::Inbox::WordsFor(window)))),
        inbox_(storage_.get(), core::Inbox::WordsFor(window)) {}

  core::Inbox& inbox() { return inbox_; }
  core::PortState& state() { return state_; }

  // A whole claim by the worker, whose connections are over at once. Returns how many.
  uint32_t ClaimAll(core::Hunger& hunger) {
    uint32_t claimed = 0;
    inbox_.Begin();
    for (; inbox_.Take() != 0; ++claimed) state_.Release();
    hunger.TakeKnock();
    return claimed;
  }

 private:
  struct FreeAligned {
    void operator()(std::byte* data) const {
      ::operator delete (data, std::align_val_t{core::kCacheLine});
    }
  };
  using Storage = std::unique_ptr<std::byte, FreeAligned>;

  static Storage Allocate(size_t bytes) {
    Storage storage(
        static_cast<std::byte*>(::operator new (bytes, std::align_val_t{core::kCacheLine})));
    std::memset(storage.get(), 0, bytes);
    return storage;
  }

  Storage storage_;
  core::Inbox inbox_;
  core::PortState state_;
};

}  // namespace ringmaster::bench

#endif  // RINGMASTER_BENCH_MICRO_INBOX_MEMORY_H_
