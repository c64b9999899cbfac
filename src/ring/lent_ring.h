// The seam over a ring that a loop has lent (Host::kRing): the master's operations travel with the
// loop's own, and the loop hands over what completes.
//
// Threads: everything by the thread that drives the loop. Destruction touches the ring no more.
//
// What is different from a ring of the library's own:
//  * A turn never waits, and returns what the loop has handed over since the last one.
//  * What other threads wait for (doorbells, connections, the end of an accept) is submitted within
//    the turn; polls and accepts go with the loop's next submission.
//  * While the submission queue stays full, what does not fit waits here, in its order.
//  * The loop may hand over any number of completions before it drives the master again, and its
//    completion queue may be of any size. So connections of multishot accepts, which nobody has
//    asked for one by one, are kept back here until the master has room for them. What follows them
//    for the same sources, the ends of those accepts included, stays behind them.
//  * Nobody says when all that was submitted has been reported, so a marker follows what was sent:
//    failures come before it, because a message is sent when its entry is taken.

#ifndef RINGMASTER_SRC_RING_LENT_RING_H_
#define RINGMASTER_SRC_RING_LENT_RING_H_

#include <liburing.h>

#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "core/op.h"
#include "core/ring.h"
#include "ring/master_ring.h"
#include "ring/translate.h"

namespace ringmaster::ring {

// As RingLoan of the public interface.
struct Loan {
  int ring_fd = -1;
  std::function<io_uring_sqe*()> get_sqe;
  std::function<int()> submit;
  uint64_t user_data_mask = 0;
  uint64_t user_data_value = 0;
};

class LentRing final : public MasterRing {
 public:
  LentRing(Loan loan, const Features& features, uint32_t completion_entries);

  // The loop's next submission wakes it, so that it drives the master for the first time. On the
  // loop's thread, or before that uses the ring.
  void AskForOwner();

  // Keeps what the entry says for the next turn, if it is the master's; false if it is not.
  bool Take(const io_uring_cqe& cqe);

  // How many connections of multishot accepts the next turn may return.
  void SetAcceptsMax(uint32_t accepts_max) { accepts_max_ = accepts_max; }
  // Whether more has come than the last turn was allowed to return.
  bool KeepsBack() const { return !accepted_.empty(); }

  // Asks the ring for something that completes at once, so that one which this thread cannot use is
  // found out.
  int Enable() override;
  int Turn(std::span<const core::Op> ops, core::Wait wait,
           std::vector<core::Completion>& completions) override;
  void TakeRemaining(std::vector<core::Completion>& completions) override;
  bool AllReported() const override {
    return markers_ == 0 && !marker_due_ && waiting_.empty() && arrived_.empty();
  }
  int WakeIn(int64_t wait_ns) override;
  int fd() const override { return -1; }
  // Something was handed over, or waits for room.
  bool HasSomething() const override {
    return woken_ || !arrived_.empty() || !accepted_.empty() || !waiting_.empty();
  }

  // The thread of the loop ends, and its ring may be gone: the loan is not used any more. What had
  // to wait for room in its queue is returned; what still comes of it is taken in, and a connection
  // closed.
  std::vector<core::Op> Retire();
  // After Retire, on that thread: where the ring is still open, ends there what `ends` are to end,
  // other operations ignored, and all that the loan has armed for itself. No entry of its queue is
  // needed, so its memory may be gone. Without IORING_REGISTER_SYNC_CANCEL (Linux 6.0), or where a
  // restriction of the ring forbids it, all stays armed until the ring is closed.
  void EndArmed(std::span<const core::Op> ends) const;
  // Whether entries may still come that could be taken for those of the other loan.
  bool Resembles(const Loan& other) const {
    return used_ && ((loan_.user_data_value ^ other.user_data_value) & loan_.user_data_mask &
                     other.user_data_mask) == 0;
  }

  // Whether operations wait for room in its queue.
  bool HoldsBack() const { return !waiting_.empty(); }
  // Hands its queue to the kernel; what is not taken now goes with the loop's next submission.
  int Submit();

  // Nothing is asked of the ring any more: ends the watch and the timeouts.
  void End();
  // After the end: connections that were accepted meanwhile are nobody's.
  void CloseArrived();

 private:
  // In the order in which it came. Memory is allocated for as many as were ever there at once.
  class Arrivals {
   public:
    void reserve(size_t count) { entries_.reserve(count); }
    bool empty() const { return first_ == entries_.size(); }
    void push(const core::Completion& completion) { entries_.push_back(completion); }
    const core::Completion& front() const { return entries_[first_]; }
    void pop() {
      if (++first_ < entries_.size()) return;
      entries_.clear();
      first_ = 0;
    }

   private:
    std::vector<core::Completion> entries_;
    size_t first_ = 0;
  };

  // Moves what there is room for.
  void Return(std::vector<core::Completion>& completions);
  // The next free entry; null when the queue is full and stays so.
  io_uring_sqe* NextEntry();
  // Whether it was put into the queue.
  bool Queue(const core::Op& op);

  Loan loan_;
  const uint64_t inode_;  // of the ring, whose number may be another file's later; 0: unknown
  bool used_ = false;     // by a thread that drives
  bool retired_ = false;
  const Dialect dialect_;
  Arrivals arrived_;                   // since the last turn
  Arrivals accepted_;                  // the same, of multishot accepts
  uint32_t accepts_max_ = UINT32_MAX;  // of these, in the next turn
  std::vector<core::Op> waiting_;      // for room in the queue
  uint32_t markers_ = 0;               // under way
  bool marker_due_ = false;            // something was sent behind the last one
  bool woken_ = false;                 // a timeout has come since the last turn
  int64_t wakes_at_ns_ = core::kWaitForever;
  __kernel_timespec wake_at_{};  // of the timeout that was prepared last
};

}  // namespace ringmaster::ring

#endif  // RINGMASTER_SRC_RING_LENT_RING_H_
