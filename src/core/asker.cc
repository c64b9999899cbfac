#include "core/asker.h"

#include <algorithm>

namespace ringmaster::core {

bool Asker::AskForMore(Source& source, Ahead ahead) {
  // What a count has found while nothing may be issued is looked for again later.
  const bool held_back = source.lack.credit() || books_.AsideFull(source) ||
                         source.back_off.pauses() || source.intake.listening().doubted() ||
                         books_.Shut(source);
  if (held_back && source.tickets.UseCount()) source.intake.edges().MayHaveMore();
  return source.intake.type().ask(*this,
                                  {.source = source, .held_back = held_back, .ahead = ahead});
}

bool Asker::MayAsk(const Asking& asking) {
  const Source& source = asking.source;
  const bool may_have_more = source.intake.edges().ready() || source.tickets.counted();
  if (!may_have_more || asking.held_back || source.pace.under_way() > 0) return false;
  return !source.intake.edges().awaits_took() || source.tickets.counted();
}

bool Asker::GetsCreditSoon(const Source& source) const {
  if (books_.Credit(source) > 0) return false;
  return std::any_of(source.joined.begin(), source.joined.end(), [this](uint32_t index) {
    const Worker& worker = books_.workers[index];
    return !worker.motion.owes_motion() && !worker.bell.owed() &&
           books_.Unclaimed(index) >= worker.motion.window() &&
           books_.StillNs(index) < books_.config.recall_after_ns;
  });
}

uint32_t Asker::Admit(Source& source, uint32_t wanted) {
  const SourceIndex index = source.index;
  bool any = false;
  credits_.clear();
  for (const uint32_t worker : source.joined) {
    // What it still has from before is for whoever is first in the next round.
    const uint32_t credit = books_.Credit(worker, source);
    credits_.push_back(credit - std::min(credit, books_.places.Kept(index, worker)));
    any |= credits_.back() > 0;
  }
  uint32_t admitted = 0;
  while (any && admitted < wanted && books_.HasRoomFor(admitted + 1) &&
         books_.places.Reserve(index)) {
    if (!books_.places.Keep(index, source.joined, credits_)) {
      books_.places.GiveBack(index);
      break;
    }
    ++admitted;
  }
  // Even if there is a place again by now: whoever made it has not knocked.
  if (admitted == 0) {
    source.lack.LackCredit();
    if (any && !books_.HasRoomFor(1)) books_.room.Want();
  }
  return admitted;
}

}  // namespace ringmaster::core
