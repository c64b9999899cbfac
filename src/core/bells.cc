#include "core/bells.h"

#include <utility>

namespace ringmaster::core {

// Whoever has been offered something in this batch is touched already. A doorbell that is owed goes
// out at once, because a master that ends cannot try later.
void Bells::TouchAll() {
  for (uint32_t index = 0; index < books_.worker_slots(); ++index) {
    Worker& worker = books_.workers[index];
    if (!worker.used || worker.sending.used()) continue;
    if (worker.bell.TryNow()) Send(index);
    if (!worker.outbox.unpublished()) touched_.push_back(index);
  }
}

void Bells::RingTouched() {
  if (std::exchange(all_, false)) TouchAll();
  for (const uint32_t index : touched_) {
    books_.workers[index].outbox.Publish();
    Ring(index);
  }
  touched_.clear();
}

void Bells::Ring(uint32_t index) {
  Worker& worker = books_.workers[index];
  const bool due = worker.outbox.Ring();
  books_.Activate(index);
  if (due && worker.config.ring_fd >= 0) Send(index);
}

void Bells::TryAgain() {
  for (const uint32_t index : books_.active) {
    Worker& worker = books_.workers[index];
    if (worker.bell.TryAgain(books_.now_ns) && !worker.sending.used()) Send(index);
  }
}

void Bells::Send(uint32_t index) {
  Worker& worker = books_.workers[index];
  worker.bell.Ring();
  books_.ops.push_back({.key = {.kind = OpKind::kDoorbell,
                                .generation = static_cast<uint16_t>(worker.generation),
                                .index = index},
                        .fd = worker.config.ring_fd,
                        .tag = worker.config.tag});
}

void Bells::OnFailed(const Completion& completion) {
  const uint32_t index = completion.key.index;
  if (index >= books_.workers.size() || completion.result >= 0) return;
  const Worker& worker = books_.workers[index];
  if (!worker.used || static_cast<uint16_t>(worker.generation) != completion.key.generation) return;
  if (!worker.outbox.rung()) return;  // it has looked without having been told
  Owe(index, -completion.result);
}

void Bells::Owe(uint32_t index, int32_t error) {
  if (books_.workers[index].bell.Fail(books_.now_ns)) {
    books_.Emit(EventKind::kDoorbellFailed, 0, index, error);
  }
  books_.Activate(index);
}

}  // namespace ringmaster::core
