// Intake::kPollAccept: a multishot poll watches the source, and the master asks for single accepts,
// as many as core/pace.h says and as there is credit for.

#include <algorithm>

#include "core/asker.h"

namespace ringmaster::core {
namespace {

bool Ask(Asker& asker, const Asking& asking) {
  if (!Asker::MayAsk(asking)) return false;
  Books& books = asker.books();
  Source& source = asking.source;
  const uint32_t asked =
      asker.Admit(source, std::min(source.pace.wanted(), books.MayBring(source)));
  source.pace.Ask(asked);
  books.room.Ask(asked);
  for (uint32_t i = 0; i < asked; ++i) {
    books.ops.push_back({.key = source.Key(OpKind::kAccept),
                         .fd = source.config.fd,
                         .accept_flags = source.config.accept_flags,
                         .file = source.config.file});
  }
  return asked > 0;
}

}  // namespace

const IntakeType kIntakePollAccept = {.name = "kPollAccept", .accepts_singly = true, .ask = Ask};

}  // namespace ringmaster::core
