// A worker: a thread with an io_uring and up to three ports of all kinds. It adds them, claims from
// them, leaves, moves and destroys them as its header allows. It may end without a word.

#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <memory>
#include <stdexcept>
#include <thread>
#include <utility>
#include <vector>

#include "attack/calls.h"
#include "attack/checks.h"
#include "attack/claims.h"
#include "attack/world.h"

namespace ringmaster::attack {
namespace {

// One life of a worker: its thread may end and leave the rest behind.
class Worker {
 public:
  Worker(World& world, Random random, bool& rests)
      : actor_{.world = world, .random = random, .is_worker = true}, rests_(rests) {}

  // On a thread of its own. Returns when the world stops, or when the worker dies.
  void Live() {
    hints_ = world().config.aims && !actor_.random.OneIn(16)
                 ? actor_.random.Of({Hints::kGives, Hints::kGives, Hints::kGives, Hints::kOnlyWaits,
                                     Hints::kOnlyWakes, Hints::kWakesTwice, Hints::kStops})
                 : actor_.random.Of({Hints::kNone, Hints::kGives});
    watches_ = actor_.random.OneIn(2) || (world().config.aims && !actor_.random.OneIn(16));
    while (ring_ == nullptr) {
      deferred_ = actor_.random.OneIn(3);
      ring_ = Ring::Make(actor_.random.Of({64u, 256u}),
                         deferred_ ? IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN
                                   : actor_.random.Of({0u, unsigned{IORING_SETUP_COOP_TASKRUN}}));
      if (ring_ == nullptr) std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
    while (!world().stop_workers) {
      if (world().calm) {
        if (!rests_) Rest();
      } else if (!Step()) {
        return;
      }
      Turn();
    }
    LeaveAll(true);
  }

  // After its thread has ended, on another one. What is in its ring is still its own.
  void Bury() { LeaveAll(!deferred_); }

 private:
  World& world() { return actor_.world; }

  // Whether it lives on.
  bool Step() {
    Random& random = actor_.random;
    if (world().config.aims && ports_.size() > 1 && !random.OneIn(16)) {
      world().FinishOne(random);
      return true;
    }
    switch (random.Below(24)) {
      case 0:
      case 1:
        if (ports_.size() < 3) AddOne();
        break;
      case 2:
      case 3:
      case 4:
        if (PortBox* const box = Any()) JoinAny(*box);
        break;
      case 5:
        if (const auto record = world().AnySource(random); record != nullptr && Any() != nullptr)
          LeaveSource(*Any(), *record);
        break;
      case 6:
        if (random.OneIn(4)) LeaveOne();
        break;
      case 7:
        if (PortBox* const box = Any()) ChangeLimitsAlone(*box);
        break;
      case 8:
        if (PortBox* const box = Any()) TookAndAdopt(*box);
        break;
      case 9:
      case 10:
        CallSomething(actor_);
        break;
      case 11:
        if (random.OneIn(8)) AddWrongPort(actor_, ring_.get());
        break;
      case 12:
        if (world().config.forks && random.OneIn(16)) Fork();
        break;
      case 13:
        if (random.OneIn(30) && MayDie()) {
          Note("the worker's thread ends without a word");
          return false;
        }
        break;
      case 14:
        if (random.OneIn(6))
          std::this_thread::sleep_for(std::chrono::microseconds(random.Below(15000)));
        break;
      case 15:
        if (PortBox* const box = Any()) PassSurplusOn(*box);
        break;
      case 16:
        if (PortBox* const box = Any(); box != nullptr && random.OneIn(8)) HintWrongly(*box);
        break;
      case 17:
        if (PortBox* const box = Any(); box != nullptr && random.OneIn(4))
          WatchSight(actor_, *box, *ring_);
        break;
      default:
        world().FinishOne(random);
    }
    return true;
  }

  // What is handed over to a ring with DEFER_TASKRUN can be had by its own thread alone.
  bool MayDie() const {
    return !deferred_ ||
           std::none_of(ports_.begin(), ports_.end(), [](const auto& box) { return box->taker(); });
  }

  PortBox* Any() {
    return ports_.empty() ? nullptr : ports_[actor_.random.Below(ports_.size())].get();
  }

  void AddOne() {
    auto kind =
        actor_.random.Of({PortBox::Kind::kRing, PortBox::Kind::kRing, PortBox::Kind::kCompletion,
                          PortBox::Kind::kDirect, PortBox::Kind::kMailbox});
    if (world().config.aims && !actor_.random.OneIn(12))
      kind = actor_.random.Of({PortBox::Kind::kMailbox, PortBox::Kind::kRing});
    const auto box = AddPort(actor_, kind, ring_.get());
    if (box == nullptr) return;
    ports_.push_back(box);
    if (watches_) WatchSight(actor_, *box, *ring_);
    JoinAny(*box);
  }

  void JoinAny(PortBox& box) {
    if (const auto record = world().AnySource(actor_.random)) Join(box, *record);
  }

  void ChangeLimitsAlone(PortBox& box) {
    const std::unique_lock alone(box.stays, std::try_to_lock);
    if (alone.owns_lock()) ChangeLimits(actor_.random, box);
  }

  void TookAndAdopt(PortBox& box) {
    // More than was sent is nothing, but what was sent must not be said before it is taken.
    box.port.Took(box.taker() ? 0 : actor_.random.Below(5));
    int ends[2];
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) != 0) return;
    {
      const Connection adopted = box.port.Adopt(ends[0], 7);
      if (adopted.fd() != ends[0] || adopted.token() != 7) Fail("Adopt makes something else");
    }
    close(ends[1]);
  }

  void PassSurplusOn(PortBox& box) {
    for (uint32_t i = std::min(box.port.Surplus(), 4u); i > 0; --i) {
      world().PassOneOn(actor_.random);
    }
    for (uint32_t ready = actor_.random.Below(6); ready > 0; --ready) {
      const size_t count = box.port.ToPassOn(ready);
      if (count >= ready) Fail("told to pass on %zu of %u that are ready", count, ready);
      if (count > 0) world().PassOneOn(actor_.random);
    }
  }

  // It says what is not so. That may cost time, and nothing else.
  void HintWrongly(PortBox& box) {
    if (actor_.random.OneIn(2)) {
      box.port.BeforeWait();
    } else {
      static_cast<void>(box.port.AfterWait());
    }
  }

  void LeaveOne() {
    const size_t i = actor_.random.Below(ports_.size());
    if (ports_.empty()) return;
    const auto box = ports_[i];
    if (actor_.random.OneIn(2)) {
      for (int n = 0; n < 8; ++n) world().PassOneOn(actor_.random);
    }
    {
      const std::unique_lock alone(box->stays, std::try_to_lock);
      if (!alone.owns_lock()) return;
      LeaveNow(actor_.random, *box);
    }
    world().Forget(*box);
    ports_.erase(ports_.begin() + static_cast<ptrdiff_t>(i));
    Empty(true);
  }

  void LeaveAll(bool enter) {
    for (const auto& box : ports_) {
      world().Forget(*box);
      const std::lock_guard alone(box->stays);
      LeaveNow(actor_.random, *box);
    }
    ports_.clear();
    if (ring_ != nullptr) Empty(enter);
    ring_.reset();
  }

  // Takes what is left in the ring, and what a thread that was cancelled had taken out of it.
  void Empty(bool enter) {
    ring_->Collect(enter, cqes_);
    TakeCompletions();
  }

  void Fork() {
    if (PortBox* const box = Any()) {
      ForkAndCheck(actor_, &box->port);
    } else {
      ForkAndCheck(actor_, nullptr);
    }
  }

  void Turn() {
    const bool again =
        std::any_of(ports_.begin(), ports_.end(), [](const auto& box) { return box->again; });
    const uint32_t wait_us = again ? 0 : (world().calm ? 1000 : actor_.random.Below(1000));
    if (hints_ == Hints::kStops && actor_.random.OneIn(50)) hints_ = Hints::kNone;
    if (hints_ != Hints::kNone && hints_ != Hints::kOnlyWakes) {
      for (const auto& box : ports_) box->port.BeforeWait();
    }
    ring_->Turn(wait_us, cqes_);
    // Also when it may not have waited at all.
    for (size_t i = 0; i < ports_.size() && hints_ != Hints::kNone; ++i) {
      if (hints_ == Hints::kOnlyWaits) break;
      const auto box = ports_[i];
      bool offered = box->port.AfterWait();
      if (hints_ == Hints::kWakesTwice) offered = box->port.AfterWait() || offered;
      if (offered && (world().calm || !actor_.random.OneIn(8))) ClaimFrom(*box);
    }
    TakeCompletions();
    for (size_t i = 0; i < ports_.size(); ++i) {
      const auto box = ports_[i];
      pollfd look = {.fd = box->polled < 0 ? box->mailbox.fd() : -1, .events = POLLIN};
      const bool readable = look.fd >= 0 && poll(&look, 1, 0) == 1;
      // At the end nobody claims for nothing, which might hide that nobody was woken.
      const bool for_nothing = !box->taker() && !world().calm && actor_.random.OneIn(20);
      if (readable || box->again || for_nothing) ClaimFrom(*box);
    }
  }

  void ClaimFrom(PortBox& box) {
    box.again = true;  // also if the thread ends within
    actor_.may_end = MayDie();
    box.again = Claim(actor_, box);
  }

  void TakeCompletions() {
    std::vector<std::pair<PortBox*, size_t>> taken;
    while (next_ < cqes_.size()) {
      io_uring_cqe cqe = cqes_[next_++];
      const uint64_t tag = cqe.user_data;
      const auto found =
          std::find_if(ports_.begin(), ports_.end(), [&](const std::shared_ptr<PortBox>& box) {
            return box->serial == ((tag & kHandedBit) != 0 ? SerialOfToken(tag)
                                                           : (tag & ~(kDoorbellBit | kPollBit)));
          });
      PortBox* const box = found == ports_.end() ? nullptr : found->get();
      if ((tag & kHandedBit) != 0) {
        Call call("takes completion %d of port %llu", cqe.res,
                  static_cast<unsigned long long>(SerialOfToken(tag)));
        // A ticket is no file.
        if ((tag & kSlotBit) != 0 && !world().BringsTickets(tag)) {
          const bool close_on_exec = world().SourceOf(tag)->close_on_exec;
          cqe.res = ring_->FdOfSlot(cqe.res, close_on_exec, cqes_);
        }
        world().ServeHandedOver(actor_.random, box == nullptr ? nullptr : &box->port, cqe);
        if (box != nullptr) taken.emplace_back(box, 1);
      } else if ((tag & kDoorbellBit) != 0) {
        if (box != nullptr) ClaimFrom(*box);
      } else if ((tag & kPollBit) != 0) {
        const bool ended = (cqe.flags & IORING_CQE_F_MORE) == 0;
        if (box == nullptr || !box->port.joined()) continue;  // its sight is gone
        if (ended && !ring_->Poll(box->polled, tag)) Fail("a ring has no room for a poll");
        ClaimFrom(*box);
      } else if (tag != LIBURING_UDATA_TIMEOUT) {
        Fail("a completion that nobody asked for: %llx", static_cast<unsigned long long>(tag));
      }
    }
    cqes_.clear();
    next_ = 0;
    for (const auto& [box, count] : taken) box->port.Took(count);
  }

  // Its ports are as they should be from now on, and it only serves.
  void Rest() {
    // One that was left within a claim is of no use. And not every source may be joined by one to
    // whom connections are handed over.
    for (const auto& box : ports_)
      if (!box->port.joined()) world().Forget(*box);
    std::erase_if(ports_, [](const auto& box) { return !box->port.joined(); });
    const bool claims =
        std::any_of(ports_.begin(), ports_.end(), [](const auto& box) { return !box->taker(); });
    if (!claims && !world().ending && !world().master_failed) {
      const auto box = AddPort(actor_, PortBox::Kind::kMailbox, nullptr);
      if (box == nullptr) return;  // next time
      ports_.push_back(box);
    }
    for (const auto& box : ports_) {
      const std::unique_lock alone(box->stays, std::try_to_lock);
      if (!alone.owns_lock()) return;  // next time
      box->port.SetCapacity(UINT32_MAX).IgnoreError();
      box->port.SetWindow(box->window).IgnoreError();
    }
    rests_ = true;
    world().calm_workers.fetch_add(1);
  }

  Actor actor_;
  bool& rests_;
  std::unique_ptr<Ring> ring_;
  std::vector<std::shared_ptr<PortBox>> ports_;
  std::vector<io_uring_cqe> cqes_;
  size_t next_ = 0;  // of these
  bool deferred_ = false;
  // What it says of its waits: as it should, half of that, more than that, or not any more.
  enum class Hints : uint8_t { kNone, kGives, kOnlyWaits, kOnlyWakes, kWakesTwice, kStops };
  Hints hints_ = Hints::kNone;
  bool watches_ = false;  // the sights of its ports
};

}  // namespace

void RunWorker(World& world, uint32_t number) {
  bool rests = false;
  for (uint64_t life = 0; !world.stop_workers; ++life) {
    Worker worker(world, Random(world.seed, 100 + number + 10 * life), rests);
    char name[12];
    std::snprintf(name, sizeof(name), "w%u.%u", number, static_cast<unsigned>(life % 100));
    std::thread([&] {
      NameThread(name);
      worker.Live();
    }).join();
    if (!world.calm) std::this_thread::sleep_for(std::chrono::milliseconds(life * 7 % 30));
    NameThread("grave");
    worker.Bury();
  }
}

}  // namespace ringmaster::attack
