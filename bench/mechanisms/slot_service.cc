#include "bench/mechanisms/slot_service.h"

#include <sys/socket.h>

#include <cerrno>
#include <cstring>
#include <span>
#include <utility>

#include "absl/strings/str_cat.h"
#include "bench/mechanisms/submission.h"

namespace ringmaster::bench {
namespace {

constexpr unsigned kKindShift = 16;
constexpr uint64_t kSlotMask = (uint64_t{1} << kKindShift) - 1;
static_assert(SlotService::kKernelsSlots + SlotService::kOwnSlots <= kSlotMask);

bool IsOwn(int slot) { return static_cast<uint32_t>(slot) >= SlotService::kKernelsSlots; }

}  // namespace

SlotService::SlotService(Serving& serving, io_uring& ring, bool waits_for_close)
    : serving_(serving),
      ring_(ring),
      waits_for_close_(waits_for_close),
      places_(kKernelsSlots + kOwnSlots) {
  // The lowest first.
  for (uint32_t i = kOwnSlots; i > 0; --i) free_.push_back(static_cast<int>(kKernelsSlots + i - 1));
}

absl::Status SlotService::MakeTable(io_uring& ring) {
  int result = io_uring_register_files_sparse(&ring, kKernelsSlots + kOwnSlots);
  if (result == 0) result = io_uring_register_file_alloc_range(&ring, 0, kKernelsSlots);
  if (result == 0) return absl::OkStatus();
  return absl::UnavailableError(
      absl::StrCat("a ring gets no file table of ", kKernelsSlots + kOwnSlots,
                   " slots: ", std::strerror(-result),
                   "; raise the hard limit of descriptors (ulimit -Hn) to at least as many"));
}

// The kernel takes the requests of a ring in their order, and does these three at once. So the slot
// is there when its first receive is looked at.
int SlotService::Register(int fd) {
  if (free_.empty()) return -1;
  const int slot = free_.back();
  free_.pop_back();
  int& place = At(slot).fd;
  place = fd;
  io_uring_sqe* entry = NextEntry(ring_, serving_.call);
  io_uring_prep_files_update(entry, &place, 1, slot);
  Mark(entry, Kind::kOther, slot);
  entry = NextEntry(ring_, serving_.call);
  io_uring_prep_close(entry, fd);
  Mark(entry, Kind::kOther, slot);
  return slot;
}

void SlotService::Take(int slot) {
  if (serving_.rests()) SubmitNow();
  serving_.OnTaken();
  ++open_;
  Receive(slot, /*after_answer=*/false);
  if (ends_) CancelReceive(slot);
}

int SlotService::OnCompletion(const io_uring_cqe& completion) {
  const int slot = static_cast<int>(completion.user_data & kSlotMask);
  switch (static_cast<Kind>(completion.user_data >> kKindShift)) {
    case Kind::kReceive:
      return OnReceived(slot, completion.res);
    case Kind::kClose:
      --closing_;
      return Ended(slot);
    case Kind::kOther:
      // It has failed: a connection that is broken, or a receive that has completed meanwhile. What
      // follows finds out.
      break;
  }
  return -1;
}

void SlotService::End() {
  if (std::exchange(ends_, true)) return;
  for (size_t slot = 0; slot < places_.size(); ++slot) {
    if (places_[slot] && places_[slot]->receives) CancelReceive(static_cast<int>(slot));
  }
}

uint64_t SlotService::Data(Kind kind, int slot) {
  return uint64_t{static_cast<uint8_t>(kind)} << kKindShift | static_cast<uint64_t>(slot);
}

// After the request is prepared, because that may clear what is said here. Nobody is told that a
// request of kind kOther has succeeded.
void SlotService::Mark(io_uring_sqe* entry, Kind kind, int slot) {
  io_uring_sqe_set_data64(entry, Data(kind, slot));
  if (kind == Kind::kOther) entry->flags |= IOSQE_CQE_SKIP_SUCCESS;
}

SlotService::Place& SlotService::At(int slot) {
  std::unique_ptr<Place>& place = places_[static_cast<size_t>(slot)];
  if (!place) place = std::make_unique<Place>();
  return *place;
}

// What has been asked of the ring goes out before the worker sleeps or computes.
void SlotService::SubmitNow() {
  if (io_uring_sq_ready(&ring_) > 0) serving_.call(io_uring_submit, &ring_);
}

// After an answer the next request is not there yet, so the kernel waits before it looks.
void SlotService::Receive(int slot, bool after_answer) {
  Place& place = At(slot);
  place.receives = true;
  io_uring_sqe* const entry = NextEntry(ring_, serving_.call);
  io_uring_prep_recv(entry, slot, place.memory.data(), place.memory.size(), 0);
  Mark(entry, Kind::kReceive, slot);
  entry->flags |= IOSQE_FIXED_FILE;
  if (after_answer) entry->ioprio |= IORING_RECVSEND_POLL_FIRST;
}

int SlotService::OnReceived(int slot, int result) {
  Place& place = At(slot);
  place.receives = false;
  if (ends_) return Close(slot);
  if (result == -EAGAIN || result == -EINTR) {
    Receive(slot, /*after_answer=*/false);
    return -1;
  }
  const std::span<char> received(place.memory.data(),
                                 result > 0 ? static_cast<size_t>(result) : size_t{0});
  if (serving_.TakesTime(received)) SubmitNow();
  const Serving::Next next = serving_.Answer(received);
  if (!received.empty()) {
    io_uring_sqe* const entry = NextEntry(ring_, serving_.call);
    io_uring_prep_send(entry, slot, received.data(), received.size(), MSG_NOSIGNAL);
    Mark(entry, Kind::kOther, slot);
    entry->flags |= IOSQE_FIXED_FILE;
  }
  if (next == Serving::Next::kClose) return Close(slot);
  Receive(slot, /*after_answer=*/true);
  return -1;
}

void SlotService::CancelReceive(int slot) {
  io_uring_sqe* const entry = NextEntry(ring_, serving_.call);
  io_uring_prep_cancel64(entry, Data(Kind::kReceive, slot), 0);
  Mark(entry, Kind::kOther, slot);
}

// A slot of its own is free when it is closed: what is registered next would be closed otherwise.
int SlotService::Close(int slot) {
  io_uring_sqe* const entry = NextEntry(ring_, serving_.call);
  io_uring_prep_close_direct(entry, static_cast<unsigned>(slot));
  if (waits_for_close_ || IsOwn(slot)) {
    Mark(entry, Kind::kClose, slot);
    ++closing_;
    return -1;
  }
  Mark(entry, Kind::kOther, slot);
  return Ended(slot);
}

int SlotService::Ended(int slot) {
  --open_;
  serving_.OnClosed();
  if (IsOwn(slot)) free_.push_back(slot);
  return slot;
}

}  // namespace ringmaster::bench
