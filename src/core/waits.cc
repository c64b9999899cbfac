#include "core/waits.h"

#include <algorithm>

namespace ringmaster::core {

bool Waits::Any() const {
  if (books_.stopping) return true;
  for (const Source& source : books_.sources) {
    if (Of(source) != For::kNothing) return true;
  }
  for (const uint32_t index : books_.active) {
    if (Of(books_.workers[index]) != For::kNothing) return true;
  }
  return false;
}

bool Waits::OnlyFor(For what) const {
  const auto waits_for_more = [this, what](const auto& who) {
    const For waits = Of(who);
    return waits != For::kNothing && waits != what;
  };
  return !books_.stopping &&
         std::none_of(books_.sources.begin(), books_.sources.end(), waits_for_more) &&
         std::none_of(books_.workers.begin(), books_.workers.end(), waits_for_more);
}

bool Waits::HasWork(const Source& source) const {
  if (books_.Deals(source) && books_.Dealable(source) > 0) return true;
  if (books_.Shut(source) || source.aim.open()) return false;
  const SourceIntake& intake = source.intake;
  if (!intake.arming().armed() && !intake.listening().failed()) return true;
  const bool looks =
      source.pace.under_way() > 0 || source.tickets.counting() || intake.listening().asking();
  if (intake.listening().asks() && !looks) return true;
  return !intake.accepts_each() && !looks && (intake.edges().ready() || source.tickets.counted());
}

}  // namespace ringmaster::core
