// The threads that drive the master of Host::kLoop and Host::kRing, one after the other.

#include <poll.h>

#include <cstdio>
#include <memory>
#include <thread>
#include <utility>
#include <vector>

#include "attack/calls.h"
#include "attack/checks.h"
#include "attack/claims.h"
#include "attack/world.h"

namespace ringmaster::attack {
namespace {

constexpr auto kPrecondition = absl::StatusCode::kFailedPrecondition;

// What outlives a host's thread.
struct Hosting {
  std::vector<std::shared_ptr<PortBox>> ports;
  uint64_t loans = 0;  // each needs a value of its own, and there are 255
  bool rests = false;
};

// One thread that hosts.
class HostLife {
 public:
  HostLife(World& world, Random random, Hosting& hosting)
      : actor_{.world = world, .random = random, .is_host = true}, hosting_(hosting) {}

  void Live() {
    if (!MakeRingAndLend()) return;
    while (!world().stop_host) {
      Turn();
      RunOnce();
      for (size_t i = 0; i < hosting_.ports.size(); ++i) {
        const auto box = hosting_.ports[i];
        again_ = Claim(actor_, *box) || again_;
      }
      if (world().calm) {
        if (!hosting_.rests) Rest();
      } else if (!Step()) {
        break;
      }
      if (world().destroy_on_host && TryToDestroy(world(), ring_.get())) break;
    }
    const std::lock_guard alone(world().hosting_lock);
    world().hosting = false;
  }

  // After the thread has ended: what its ring has brought is the master's to close.
  void Bury() {
    ended_.store(true);
    if (ring_ == nullptr) return;
    cqes_.clear();
    ring_->Collect(!deferred_, cqes_);
    if (const BalancerUse balancer(world()); balancer)
      for (const io_uring_cqe& cqe : cqes_) balancer->OnCompletion(cqe);
    // One that stays open must not keep anybody waiting.
    if (actor_.random.OneIn(2)) ring_.reset();
  }

 private:
  World& world() { return actor_.world; }

  bool MakeRingAndLend() {
    if (world().config.host != Host::kRing) return true;
    while (ring_ == nullptr) {
      deferred_ = actor_.random.OneIn(3);
      // What does not fit into the queue of a ring with DEFER_TASKRUN, its thread alone can have.
      ring_ = deferred_ ? Ring::Make(1024, IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN)
                        : Ring::Make(actor_.random.Of({8u, 64u, 256u}),
                                     actor_.random.Of({0u, unsigned{IORING_SETUP_COOP_TASKRUN}}));
      if (ring_ == nullptr) std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
    if (actor_.random.OneIn(4)) LendWrongly();
    for (int i = 0; i < 3; ++i) {
      const BalancerUse balancer(world());
      if (!balancer) return false;
      const uint64_t value = ++hosting_.loans % 255 + 1;
      Call call("Lend, value %llu", static_cast<unsigned long long>(value));
      if (Expect(call, balancer->Lend(LoanOf(value)),
                 {absl::StatusCode::kInvalidArgument, kPrecondition}))
        return true;
    }
    if (!world().ending) Fail("a ring cannot be lent");
    return true;
  }

  RingLoan LoanOf(uint64_t value) {
    return {.ring_fd = (*ring_)->ring_fd,
            .get_sqe =
                [this] {
                  CheckLives();
                  return io_uring_get_sqe(&ring_->get());
                },
            .submit =
                [this] {
                  CheckLives();
                  return io_uring_submit(&ring_->get());
                },
            .user_data_mask = uint64_t{0xff} << 56,
            .user_data_value = value << 56};
  }

  void LendWrongly() {
    const BalancerUse balancer(world());
    if (!balancer) return;
    RingLoan loan = LoanOf(1);
    switch (actor_.random.Below(5)) {
      case 0:
        loan.get_sqe = nullptr;
        break;
      case 1:
        loan.submit = nullptr;
        break;
      case 2:
        loan.user_data_mask = 0xff;
        break;
      case 3:
        loan.ring_fd = -1;
        break;
      default:
        loan.user_data_value = 1;
    }
    Call call("Lend, which is wrong");
    const absl::Status status = balancer->Lend(std::move(loan));
    Expect(call, status, {absl::StatusCode::kInvalidArgument, kPrecondition});
    if (status.ok()) Fail("a wrong loan was taken");
  }

  void CheckLives() const {
    if (ended_) Fail("the loan of a thread that has ended was used");
  }

  void Turn() {
    const uint32_t wait_us = again_ ? 0 : (world().calm ? 1000 : actor_.random.Below(1000));
    again_ = false;
    if (world().config.host == Host::kLoop) {
      int fd = -1;
      {
        const BalancerUse balancer(world());
        if (balancer) fd = balancer->fd();
      }
      pollfd look = {.fd = fd, .events = POLLIN};
      poll(&look, 1, wait_us > 500 ? 1 : 0);
      return;
    }
    cqes_.clear();
    ring_->Turn(wait_us, cqes_);
    const BalancerUse balancer(world());
    for (const io_uring_cqe& cqe : cqes_)
      if (balancer && !balancer->OnCompletion(cqe) && cqe.user_data != LIBURING_UDATA_TIMEOUT)
        Fail("a completion that nobody asked for: %llx",
             static_cast<unsigned long long>(cqe.user_data));
  }

  void RunOnce() {
    const BalancerUse balancer(world());
    if (!balancer) return;
    const absl::Status status = balancer->RunOnce();
    if (!status.ok()) {
      Call call("RunOnce");
      Expect(call, status, {kPrecondition});
      if (!world().ending && !world().master_failed) Fail("the host cannot run: %s", call.line());
      return;
    }
    if (hosts_) return;
    hosts_ = true;
    const std::unique_lock alone(world().hosting_lock, std::try_to_lock);
    if (alone.owns_lock()) world().hosting = true;
  }

  // Whether it lives on.
  bool Step() {
    Random& random = actor_.random;
    switch (random.Below(16)) {
      case 0:
        if (hosting_.ports.size() < 2) AddOne();
        break;
      case 1:
      case 2:
        JoinAny();
        break;
      case 3:
        if (random.OneIn(10)) LeaveOne();
        break;
      case 4:
      case 5:
        CallSomething(actor_);
        break;
      case 6:
        if (random.OneIn(6))
          std::this_thread::sleep_for(std::chrono::microseconds(random.Below(15000)));
        break;
      case 7:
        if (world().config.hosts_end && hosting_.loans < 200 && random.OneIn(6)) {
          Note("the host's thread ends");
          return false;
        }
        break;
      case 8:
        world().PassOneOn(random);
        break;
      case 9:  // says nothing, of a port on the host
        if (!hosting_.ports.empty()) {
          hosting_.ports.back()->port.BeforeWait();
          static_cast<void>(hosting_.ports.back()->port.AfterWait());
        }
        break;
      default:
        world().FinishOne(random);
    }
    return true;
  }

  void AddOne() {
    const auto box = AddPort(actor_, PortBox::Kind::kOnHost, nullptr);
    if (box != nullptr) hosting_.ports.push_back(box);
    JoinAny();
  }

  void JoinAny() {
    if (hosting_.ports.empty()) return;
    const auto record = world().AnySource(actor_.random);
    if (record != nullptr)
      Join(*hosting_.ports[actor_.random.Below(hosting_.ports.size())], *record);
  }

  void LeaveOne() {
    if (hosting_.ports.empty()) return;
    const auto box = hosting_.ports.back();
    {
      const std::unique_lock alone(box->stays, std::try_to_lock);
      if (!alone.owns_lock()) return;
      LeaveNow(actor_.random, *box);
    }
    world().Forget(*box);
    hosting_.ports.pop_back();
  }

  void Rest() {
    for (const auto& box : hosting_.ports) {
      const std::unique_lock alone(box->stays, std::try_to_lock);
      if (!alone.owns_lock()) return;  // next time
      box->port.SetCapacity(UINT32_MAX).IgnoreError();
      box->port.SetWindow(box->window).IgnoreError();
    }
    hosting_.rests = true;
    world().calm_host.store(true);
  }

  Actor actor_;
  Hosting& hosting_;
  bool hosts_ = false;
  bool again_ = false;
  bool deferred_ = false;
  std::atomic<bool> ended_{false};
  std::unique_ptr<Ring> ring_;
  std::vector<io_uring_cqe> cqes_;
};

}  // namespace

void RunHost(World& world) {
  Hosting hosting;
  std::vector<std::unique_ptr<HostLife>> lives;  // the loans may be referred to until the end
  for (uint64_t life = 0; !world.stop_host; ++life) {
    lives.push_back(std::make_unique<HostLife>(world, Random(world.seed, 500 + life), hosting));
    HostLife& host = *lives.back();
    char name[12];
    std::snprintf(name, sizeof(name), "host.%u", static_cast<unsigned>(life % 100));
    std::thread([&] {
      NameThread(name);
      host.Live();
    }).join();
    NameThread("grave");
    host.Bury();
    if (!world.calm && life % 2 == 0) std::this_thread::sleep_for(std::chrono::milliseconds(5));
  }
  for (const auto& box : hosting.ports) {
    world.Forget(*box);
    const std::lock_guard alone(box->stays);
    box->port = Port();
  }
}

}  // namespace ringmaster::attack
