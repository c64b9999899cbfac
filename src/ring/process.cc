#include "ring/process.h"

#include <sys/mman.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <utility>

#include "ring/errors.h"

namespace ringmaster::ring {
namespace {

// Points to memory that a forked child finds zeroed.
std::atomic<std::atomic<uint64_t>*> this_process{nullptr};
// In memory that a child inherits, so that the child goes on counting where its parent stopped.
std::atomic<uint64_t> last_number{0};

constexpr int kFree = -1;    // nobody has the slot
constexpr int kClosed = -2;  // somebody has the slot, and its descriptor was closed in this child
constexpr int kTaken = -3;   // somebody is about to have the slot

}  // namespace

absl::Status KnowThisProcess() {
  std::atomic<uint64_t>* mark = this_process.load(std::memory_order_acquire);
  if (mark == nullptr) {
    void* const page =
        mmap(nullptr, sizeof(*mark), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (page == MAP_FAILED) return ErrorStatus(Operation::kMakeDescriptor, errno);
    if (madvise(page, sizeof(*mark), MADV_WIPEONFORK) != 0) {
      const int error = errno;
      munmap(page, sizeof(*mark));
      return ErrorStatus(Operation::kMakeDescriptor, error);
    }
    std::atomic<uint64_t>* const made = new (page) std::atomic<uint64_t>(0);
    // Release: whoever finds the pointer also finds the memory initialised. It is never unmapped
    // while the process lives.
    if (this_process.compare_exchange_strong(mark, made, std::memory_order_acq_rel)) {
      mark = made;
    } else {
      munmap(page, sizeof(*mark));
    }
  }
  uint64_t unknown = 0;
  if (mark->load(std::memory_order_relaxed) == 0) {
    mark->compare_exchange_strong(unknown, NewNumber(), std::memory_order_relaxed);
  }
  return absl::OkStatus();
}

uint64_t ThisProcess() {
  const std::atomic<uint64_t>* const mark = this_process.load(std::memory_order_acquire);
  return mark == nullptr ? 0 : mark->load(std::memory_order_relaxed);
}

uint64_t NewNumber() { return last_number.fetch_add(1, std::memory_order_relaxed) + 1; }

struct OwnDescriptor::Slot {
  std::atomic<int> fd{kFree};
  // Written before `fd`, which publishes them.
  std::atomic<uint64_t> process{0};
  std::atomic<uint64_t> owner{0};
};

// Never freed, because a child may be in the middle of anything.
struct OwnDescriptor::Chunk {
  std::array<Slot, 64> slots;
  std::atomic<Chunk*> next{nullptr};

  static Chunk& First() {
    static constinit Chunk first;
    return first;
  }
};

OwnDescriptor::Slot& OwnDescriptor::TakeSlot() {
  for (Chunk* chunk = &Chunk::First();;) {
    for (Slot& slot : chunk->slots) {
      int free = kFree;
      if (slot.fd.load(std::memory_order_relaxed) == kFree &&
          slot.fd.compare_exchange_strong(free, kTaken, std::memory_order_acquire)) {
        return slot;
      }
    }
    Chunk* next = chunk->next.load(std::memory_order_acquire);
    if (next == nullptr) {
      auto* const made = new Chunk;
      if (chunk->next.compare_exchange_strong(next, made, std::memory_order_acq_rel)) {
        next = made;
      } else {
        delete made;
      }
    }
    chunk = next;
  }
}

OwnDescriptor::OwnDescriptor(int fd, uint64_t owner) {
  if (fd < 0) return;
  slot_ = &TakeSlot();
  slot_->process.store(ThisProcess(), std::memory_order_relaxed);
  slot_->owner.store(owner, std::memory_order_relaxed);
  // Release: pairs with the exchange in CloseWhere.
  slot_->fd.store(fd, std::memory_order_release);
}

OwnDescriptor::OwnDescriptor(OwnDescriptor&& other) noexcept
    : slot_(std::exchange(other.slot_, nullptr)) {}

OwnDescriptor& OwnDescriptor::operator=(OwnDescriptor&& other) noexcept {
  if (this != &other) {
    Close();
    slot_ = std::exchange(other.slot_, nullptr);
  }
  return *this;
}

int OwnDescriptor::get() const {
  if (slot_ == nullptr) return -1;
  const int fd = slot_->fd.load(std::memory_order_relaxed);
  return fd >= 0 ? fd : -1;
}

void OwnDescriptor::SetOwner(uint64_t owner) {
  if (slot_ != nullptr) slot_->owner.store(owner, std::memory_order_relaxed);
}

void OwnDescriptor::Close() {
  if (const int fd = Release(); fd >= 0) close(fd);
}

int OwnDescriptor::Release() {
  Slot* const slot = std::exchange(slot_, nullptr);
  if (slot == nullptr) return -1;
  const int fd = slot->fd.exchange(kFree, std::memory_order_acq_rel);
  return fd >= 0 ? fd : -1;
}

template <typename Wanted>
void OwnDescriptor::CloseWhere(Wanted wanted) {
  for (Chunk* chunk = &Chunk::First(); chunk != nullptr;
       chunk = chunk->next.load(std::memory_order_acquire)) {
    for (Slot& slot : chunk->slots) {
      int fd = slot.fd.load(std::memory_order_acquire);
      // The slot is given back by its owner, if that is still to be destroyed.
      if (fd >= 0 && wanted(slot) &&
          slot.fd.compare_exchange_strong(fd, kClosed, std::memory_order_acq_rel)) {
        close(fd);
      }
    }
  }
}

void CloseDescriptorsOf(uint64_t owner) {
  OwnDescriptor::CloseWhere([owner](const OwnDescriptor::Slot& slot) {
    return slot.owner.load(std::memory_order_relaxed) == owner &&
           slot.process.load(std::memory_order_relaxed) != ThisProcess();
  });
}

void CloseDescriptorsOfOtherProcesses() {
  OwnDescriptor::CloseWhere([](const OwnDescriptor::Slot& slot) {
    return slot.process.load(std::memory_order_relaxed) != ThisProcess();
  });
}

}  // namespace ringmaster::ring
