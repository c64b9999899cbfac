#include "core/places.h"

#include "core/check.h"

namespace ringmaster::core {

// --- Set-up --------------------------------------------------------------------------------------

void Places::SetSource(uint32_t source, Gate* gate, bool promises) {
  if (source == sources_.size()) sources_.emplace_back();
  sources_[source] = {.gate = gate, .may_promise = promises};
  sources_[source].promised.resize(workers_.size());
  sources_[source].kept.resize(workers_.size());
}

void Places::SetWorker(uint32_t worker, PortState* state, uint32_t capacity) {
  if (worker >= workers_.size()) {
    workers_.resize(worker + 1);
    for (Source& source : sources_) {
      source.promised.resize(workers_.size());
      source.kept.resize(workers_.size());
    }
  }
  workers_[worker] = {.state = state, .capacity = capacity};
}

void Places::Leaves(SourceIndex index, WorkerIndex worker) {
  Source& source = sources_[index];
  for (uint32_t count = Promised(index, worker); count > 0; --count) {
    Release(worker);
    UsePromise(source, worker);
  }
  Use(source, worker, Kept(index, worker));
}

// --- Gates ---------------------------------------------------------------------------------------

bool Places::Reserve(uint32_t index) {
  if (std::exchange(sources_[index].count_has_place, false)) return true;
  Gate* const own = sources_[index].gate;
  if (own != nullptr && !own->Reserve()) return false;
  if (gate_ == nullptr || gate_->Reserve()) return true;
  if (own != nullptr) own->GiveBack();
  return false;
}

bool Places::Full(uint32_t index) const {
  const Gate* const own = sources_[index].gate;
  return (own != nullptr && own->Full()) || (gate_ != nullptr && gate_->Full());
}

bool Places::TakeFromCount(uint32_t index) {
  if (!std::exchange(sources_[index].count_has_place, false)) return false;
  GiveBack(index);
  return true;
}

// --- Promises and kept credit --------------------------------------------------------------------

void Places::TakeBack(WorkerIndex worker, SourceIndex index) {
  Source& source = sources_[index];
  if (source.may_promise && Limited(worker)) {
    Promise(source, worker);
  } else {
    Release(worker);
  }
}

bool Places::Keep(SourceIndex index, std::span<const uint32_t> joined,
                  std::span<uint32_t> credits) {
  Source& source = sources_[index];
  for (;;) {
    size_t best = credits.size();
    for (size_t i = 0; i < credits.size(); ++i) {
      if (credits[i] == 0) continue;
      const bool limited = Limited(joined[i]);
      const bool best_limited = best < credits.size() && Limited(joined[best]);
      const bool better = best == credits.size() || (best_limited && !limited) ||
                          (best_limited == limited && credits[i] > credits[best]);
      if (better) best = i;
    }
    if (best == credits.size()) return false;
    const uint32_t worker = joined[best];
    if (Limited(worker)) {
      if (!workers_[worker].state->Reserve(workers_[worker].capacity)) {
        credits[best] = 0;  // another master has the place
        continue;
      }
      Promise(source, worker);
    }
    --credits[best];
    ++source.kept[worker];
    ++source.keeps;
    ++workers_[worker].kept;
    return true;
  }
}

bool Places::LetGoOfSurplus(SourceIndex index, uint64_t credit, uint64_t promises) {
  Source& source = sources_[index];
  const auto workers = static_cast<uint32_t>(workers_.size());
  bool any = false;
  for (uint32_t worker = workers; source.keeps > credit && worker-- > 0;) {
    const uint64_t surplus = std::min<uint64_t>(source.keeps - credit, source.kept[worker]);
    Use(source, worker, static_cast<uint32_t>(surplus));
    any = true;
  }
  // The place and the credit that are kept at a worker are for the same arrival.
  for (uint32_t worker = workers; source.promises > promises && worker-- > 0;) {
    while (source.promises > promises && source.promised[worker] > source.kept[worker]) {
      Release(worker);
      UsePromise(source, worker);
      any = true;
    }
  }
  return any;
}

void Places::CheckAll() const {
  for (uint32_t worker = 0; worker < workers_.size(); ++worker) {
    uint32_t kept = 0;
    for (const Source& source : sources_) kept += source.kept[worker];
    RINGMASTER_CHECK(kept == workers_[worker].kept);
  }
}

}  // namespace ringmaster::core
