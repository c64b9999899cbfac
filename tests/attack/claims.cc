#include "attack/claims.h"

#include <pthread.h>

#include <chrono>
#include <stdexcept>
#include <thread>
#include <utility>

namespace ringmaster::attack {
namespace {

// Thrown through Claim.
struct Thrown {};

// Within a claim: whatever is drawn; `left` when the port is gone.
void Disturb(Actor& actor, PortBox& box, bool& left) {
  if (actor.world.calm || left) return;
  Random& random = actor.random;
  switch (random.Below(60)) {
    case 0:
      if (box.port.Claim([](Connection) { Fail("a claim within a claim brings something"); }))
        Fail("a claim within a claim says that offers are left");
      break;
    case 1:
      throw Thrown();
    case 2: {
      const std::unique_lock alone(box.stays, std::try_to_lock);
      if (!alone.owns_lock()) break;
      LeaveNow(random, box);
      left = true;
      break;
    }
    case 3: {
      const std::unique_lock alone(box.stays, std::try_to_lock);
      if (!alone.owns_lock()) break;
      Port moved = std::move(box.port);
      if (box.port.joined()) Fail("a port that was moved from has joined");
      box.port = std::move(moved);
      break;
    }
    case 4:
      std::this_thread::sleep_for(std::chrono::microseconds(random.Below(15000)));
      break;
    case 5:
      CallSomething(actor);
      break;
    case 6:
      if (!actor.may_end || !random.OneIn(4)) break;
      Note("the thread is cancelled within a claim");
      pthread_cancel(pthread_self());
      pthread_testcancel();
      break;
    default:
      break;
  }
}

// What a port says of the end, maybe after it has left.
void CheckEnd(const World& world, const Port& port) {
  const bool ended = port.ended();
  const bool draining = port.draining();
  if (ended && !draining) Fail("a port says that its balancer has ended without a drain");
  if (!port.joined() && !ended) Fail("a port that has left waits for a balancer");
  if (port.joined() && draining && !world.ending && !world.master_failed)
    Fail("a port drains, and nobody has asked for the end");
}

}  // namespace

bool Claim(Actor& actor, PortBox& box) {
  const size_t most = actor.random.OneIn(3) ? actor.random.Below(4) : SIZE_MAX;
  const bool redeems = !actor.random.OneIn(8);
  bool left = false;
  bool again = false;
  size_t count = 0;
  Call call("port %llu Claim", static_cast<unsigned long long>(box.serial));
  const auto serve = [&](Connection connection) {
    ++count;
    if (left) Fail("a port that has left brings a connection");
    Disturb(actor, box, left);
    actor.world.Serve(actor.random, std::move(connection));
  };
  try {
    if (redeems || actor.world.calm) {
      again = box.port.Claim(
          serve,
          [&](Ticket ticket) {
            ++count;
            if (left) Fail("a port that has left brings a ticket");
            try {
              Disturb(actor, box, left);
            } catch (...) {
              ticket.Again();  // what it stands for is still there
              throw;
            }
            actor.world.Redeem(actor.random, std::move(ticket));
          },
          most);
    } else {
      again = box.port.Claim(serve, most);
    }
  } catch (const Thrown&) {
    call.Returns("%zu, thrown", count);
    return true;
  }
  if (count == 0 && !again) {
    call.Forget();
  } else {
    call.Returns("%zu%s", count, again ? ", more" : "");
  }
  if (count > most) Fail("a claim of at most %zu brought %zu", most, count);
  if (left && again) Fail("a port that has left says that offers are left");
  CheckEnd(actor.world, box.port);
  return again;
}

void LeaveNow(Random& random, PortBox& box) {
  Call call("port %llu leaves, worker %u", static_cast<unsigned long long>(box.serial),
            box.port.worker());
  if (random.OneIn(3)) box.mailbox = Mailbox();
  switch (random.Below(3)) {
    case 0:
      box.port = Port();
      break;
    case 1: {
      const Port gone = std::move(box.port);
      break;
    }
    default:
      box.port.Leave();
  }
  if (box.port.joined()) Fail("a port has not left");
  call.Returns("done");
}

}  // namespace ringmaster::attack
