#include "core/armer.h"

namespace ringmaster::core {

void Armer::AskForStates() {
  for (Source& source : books_.sources) {
    if (books_.Shut(source) || !source.intake.listening().AskNow()) continue;
    books_.ops.push_back(
        {.key = source.Key(OpKind::kState), .fd = source.config.fd, .file = source.config.file});
  }
}

void Armer::ArmSources() {
  if (!watching_ && !books_.resting && books_.config.watch_fd >= 0) {
    watching_ = true;
    books_.ops.push_back({.key = {.kind = OpKind::kWatch}, .fd = books_.config.watch_fd});
  }
  for (Source& source : books_.sources) {
    Arm(source);
    WatchEnd(source);
  }
}

void Armer::Arm(Source& source) {
  const bool wants = waits_.WantsArm(source);
  if (wants && source.intake.arming().idle()) {
    ++source.counts.arms;
    if (source.intake.accepts_each()) source.back_off.Try(books_.now_ns);
    books_.ops.push_back({.key = source.intake.Arm(source.facts, source.index),
                          .fd = source.config.fd,
                          .accept_flags = source.config.accept_flags,
                          .file = source.config.file});
  } else if (!wants && source.intake.arming().armed()) {
    if (!source.aim.open()) ++source.counts.pauses;
    books_.ops.push_back({.key = source.intake.EndArming(), .fd = source.config.fd});
  }
}

void Armer::WatchEnd(Source& source) {
  Arming& arming = source.intake.arming();
  if (source.intake.WatchIsDue()) {
    books_.ops.push_back({.key = arming.Watch(source.facts, source.index),
                          .fd = source.config.fd,
                          .file = source.config.file});
  } else if (arming.WatchIsOver()) {
    books_.ops.push_back({.key = arming.EndWatch(), .fd = source.config.fd});
  }
}

void Armer::AskForOverflows() {
  if (books_.stopping || books_.resting) return;
  uint32_t asked = 0;
  for (Source& source : books_.sources) {
    const bool armed = source.intake.arming().armed() || source.aim.open();
    if (source.removed || !source.overflows.Due(books_.now_ns, armed)) continue;
    if (asked++ == kOverflowLooksPerBatchMax) return;
    source.overflows.Ask(books_.now_ns);
    books_.ops.push_back({.key = source.Key(OpKind::kOverflows), .fd = source.config.fd});
  }
}

void Armer::ForgetRing() {
  watching_ = false;
  for (Source& source : books_.sources) {
    source.intake.Forget();
    if (source.tickets.ForgetCount()) source.intake.edges().LookAgain();
    source.overflows.Answered();
    for (uint32_t asked = source.pace.Forget(); asked > 0; --asked) {
      books_.room.Complete();
      books_.places.GiveBack(source.index);
    }
  }
  books_.LetGo();
}

}  // namespace ringmaster::core
